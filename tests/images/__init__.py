"""The image and the compose stack: what of them can be tested with and without an engine."""
