"""Getting what is not here: from the network's nodes, delegated routers and a Kubo, verified."""
