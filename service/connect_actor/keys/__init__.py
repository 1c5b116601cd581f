"""Master keys, key pairs, and where they come from."""
