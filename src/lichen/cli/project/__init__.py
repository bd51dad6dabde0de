"""The project a developer deploys: its `lichen.toml`, its templates and what it is built into."""
