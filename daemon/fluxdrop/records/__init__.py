"""Records, which are result and error JSON, and the files that belong to them."""
