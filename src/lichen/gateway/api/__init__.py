"""The public API under `/api/v1`: what a network knows, as JSON, and how it is told things."""
