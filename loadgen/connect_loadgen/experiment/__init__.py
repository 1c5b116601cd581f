"""What every experiment consists of: figures, rounds, bounds, and a result."""
