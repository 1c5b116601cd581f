"""The journal on SQLite: one file, one writer, and all that is done with such a file."""
