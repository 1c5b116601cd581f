"""Names of the files in the service's data directory."""

import re

__all__ = ["IDENTITY_FILE", "journal_file", "journal_of"]

IDENTITY_FILE = "identity.sealed"

# Of a service that is one process.
_JOURNAL_FILE = "journal.db"
_OF_A_WORKER = re.compile(r"journal-\d+-of-(\d+)\.db")


def journal_file(worker: int, workers: int) -> str:
    """Return the name of a worker's journal; workers are counted from 0."""
    return _JOURNAL_FILE if workers == 1 else f"journal-{worker}-of-{workers}.db"


def journal_of(name: str) -> int | None:
    """Return how many workers a journal of this file name is for; None: it is no journal."""
    if name == _JOURNAL_FILE:
        return 1
    found = _OF_A_WORKER.fullmatch(name)
    return None if found is None else int(found[1])
