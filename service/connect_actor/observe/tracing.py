"""Following one message through the rooms, by its request id: at log level debug one line a step.

``received``, ``recorded`` (its record is on its way to the journal, under this sequence number),
``durable`` (with this round of the committer), ``answered``; or ``refused``. The id rides on the
reply, which goes with the command wherever that goes. Below debug none of it is done: whoever takes
a step asks ``tracing()`` once, when it is made, and keeps the answer.

What fails for the service's own reasons is told at warning, with the same id, whatever the level.
"""

import logging
import os
import re

__all__ = ["REQUEST_ID", "acceptable_id", "fresh_id", "id_of", "note", "tell", "tracing"]

REQUEST_ID = "x-request-id"
"""Name of the id in a call's metadata, and in its answer's."""

_log = logging.getLogger("service.requests")
# Printable, no blanks: it must be one word in a log, and be found again by grep.
_ACCEPTABLE = re.compile(r"[\x21-\x7e]{1,64}")


def tracing() -> bool:
    """Say whether steps are to be told."""
    return _log.isEnabledFor(logging.DEBUG)


def fresh_id() -> str:
    """Make an id for a request that brought none, 16 characters."""
    return os.urandom(8).hex()


def acceptable_id(offered: object) -> str | None:
    """Return what a caller offers as an id, or None if it is no word of at most 64 characters."""
    if isinstance(offered, str) and _ACCEPTABLE.fullmatch(offered):
        return offered
    return None


def id_of(reply: object) -> str | None:
    """Return the id that a reply carries; none does unless steps are logged."""
    request_id: str | None = getattr(reply, "request_id", None)
    return request_id


def note(event: str, request_id: str | None, **fields: str | int | None) -> None:
    """Tell of a step, at debug."""
    _log.debug(event, extra={"request_id": request_id, **fields})


def tell(event: str, request_id: str | None, **fields: str | int | None) -> None:
    """Tell of a failure, at warning."""
    # Of each kind of failure so many lines, not of all together.
    _log.warning(event, extra={"request_id": request_id, **fields}, stacklevel=2)
