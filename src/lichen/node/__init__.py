"""One edge node: a process that works and earns."""
