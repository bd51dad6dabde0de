"""`python -m lichen` is the `lichen` command; the supervisor starts its children this way."""

from lichen.cli.main import run

if __name__ == "__main__":
    run()
