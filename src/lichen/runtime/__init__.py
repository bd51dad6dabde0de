"""How a function runs: engines, pools, limits, sandbox tiers and bundling."""
