"""Where content persists."""
