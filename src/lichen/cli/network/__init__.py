"""A whole network on one machine: its folder, and the supervisor of its processes."""
