"""Sites: what stands at a path, and the rules of `_redirects` and `_headers`."""
