"""The operator's commands, each with its work."""
