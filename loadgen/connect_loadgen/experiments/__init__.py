"""The experiments: each a file that says what is particular to it."""
