"""One module for each form that content is sent in."""
