"""Names of the files in the service's data directory."""

__all__ = ["IDENTITY_FILE", "JOURNAL_FILE"]

IDENTITY_FILE = "identity.sealed"
JOURNAL_FILE = "journal.db"
