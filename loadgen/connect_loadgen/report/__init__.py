"""What a command shows and writes: tables on the terminal, the result as JSON, pages in HTML."""
