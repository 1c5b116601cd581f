"""What a command can be told, and how single values are written."""
