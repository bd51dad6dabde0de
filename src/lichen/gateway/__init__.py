"""The HTTP front door: names to content or function to bytes."""
