"""The service as an operator meets it: its command line, its settings, its files, its process."""
