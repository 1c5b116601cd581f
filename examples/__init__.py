"""Programs to read, run and begin one's own with."""
