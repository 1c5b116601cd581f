"""Single measurements: what one service does in one turn."""
