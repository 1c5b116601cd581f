"""Who owns what among the workers: channels, and shares of what is bounded for the whole service.

A channel belongs to the worker that its id names. Ids are digests, so shares are even; they never
change, so neither may the number of workers of a data directory: a journal says in its file's name
how many it is one of (``process.paths``), and ``require_layout`` refuses any other number.
"""

from pathlib import Path

from connect_actor.persistence.contract import JournalError
from connect_actor.process.paths import journal_of
from connect_actor.settings import Settings

__all__ = ["LayoutError", "require_layout", "share_of"]

_BOUNDS_OF_THE_SERVICE = (
    "max_bytes_in_service",
    "max_calls",
    "max_channels",
    "max_channels_per_principal",
    "max_connections",
    "max_live_actors",
    "max_operations_in_service",
    "max_waiting_recoveries",
    "max_waiting_writes",
)


class LayoutError(JournalError):
    """The data directory was made for another number of workers; the message says which."""


def share_of(settings: Settings, workers: int, listen: str) -> Settings:
    """Return what one of several workers runs with.

    Bounds of the service are divided, rounded up; so is the number of channels of a principal,
    which are spread over all workers. Rates are not: whoever has one connection has one worker.

    Args:
        settings: of the whole service.
        workers: how many share it.
        listen: host:port that all of them listen on.
    """
    shares = {name: -(-getattr(settings, name) // workers) for name in _BOUNDS_OF_THE_SERVICE}
    # The supervisor serves the metrics of all, and asks for them where nobody else needs to.
    own = {"listen": listen, "metrics_listen": "127.0.0.1:0"}
    return settings.model_copy(update={**shares, **own})


def require_layout(data_dir: Path, workers: int) -> None:
    """Check that the journals of a data directory, if it has any, are those of so many workers.

    Raises:
        LayoutError: they are not, or it is no directory.
        OSError: it can't be listed.
    """
    try:
        # Not by a pattern: that finds nothing where it has no access.
        names = sorted(path.name for path in data_dir.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise LayoutError(f"{data_dir} is no directory: name one by --data-dir") from None
    for name in names:
        found = journal_of(name)
        if found is not None and found != workers:
            raise LayoutError(
                f"{data_dir / name} is of a service of {_named(found)}, and with"
                f" {_named(workers)} its channels would be looked for elsewhere: give --workers"
                f" {found}, or another --data-dir"
            )


def _named(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
