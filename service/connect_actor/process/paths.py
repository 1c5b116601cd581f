"""The service's data directory: the names of its files, its keys, and who may enter it."""

import logging
import os
import re
from pathlib import Path

from connect_actor.keys.sources import KeySource
from connect_actor.settings import Settings

__all__ = ["IDENTITY_FILE", "journal_file", "journal_of", "key_source", "make_private"]

_log = logging.getLogger(__name__)

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


def key_source(settings: Settings) -> KeySource:
    """Return where the master keys come from."""
    keys = settings.sealing_keys
    return KeySource(
        settings.data_dir / "sealing.key",
        file=settings.sealing_key_file,
        keys=None if keys is None else keys.get_secret_value(),
        command=settings.sealing_key_command,
    )


def make_private(directory: Path) -> None:
    """Make a data directory that only its owner may enter, or have an existing one be such.

    One that others may enter is tightened if it is this user's and in use as a data directory, or
    empty. Any other (``/tmp``, a home) may be shared on purpose, so it is only warned of.

    Raises:
        OSError: it can't be made or read.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if not status.st_mode & 0o077:
        return
    names = [path.name for path in directory.iterdir()]
    ours = not names or any(name == IDENTITY_FILE or journal_of(name) for name in names)
    if ours and status.st_uid == os.geteuid():
        directory.chmod(0o700)
        _log.warning("other users could enter %s: its mode is 0700 now", directory)
    else:
        _log.warning(
            "other users may enter %s: have its owner run chmod 700 on it, or give the service a"
            " data_dir of its own",
            directory,
        )
