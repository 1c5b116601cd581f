"""The crash run: kill -9 under load, again and again, and a ledger of what the service had said."""
