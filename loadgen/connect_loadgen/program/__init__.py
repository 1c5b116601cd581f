"""What every command rests on: its end, its exit code, its children, files and progress."""
