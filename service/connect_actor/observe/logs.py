"""Logging: one JSON object a line on standard error, from the standard library's loggers.

A service has that written by a thread (``observe.line_writer``): no logger waits for its reader.

Nothing secret is ever handed to a logger; payloads and keys have no place in a message.
"""

import logging
import sys
from time import monotonic

import structlog

from connect_actor.observe.line_writer import LineWriter

__all__ = ["Flood", "configure_logging", "lines_dropped", "suppressed_lines"]

_log = logging.getLogger(__name__)

# Lines from one place in the code that are written at once, and a second from then on.
_BURST = 64
_LINES_PER_SECOND = 8.0


class Flood(logging.Filter):
    """Holds back lines of warning and above of which one place in the code writes too many.

    Whatever a caller can cause to be logged, it can cause as often as it likes. The next line from
    that place tells how many were held back (``suppressed``). Lines below warning are written as
    asked: what is told of each call is told at debug.
    """

    def __init__(self) -> None:
        super().__init__()
        self.suppressed = 0
        """Lines held back, since the start."""
        # When each place's allowance is whole again, and how many lines it has held back since its
        # last one. There are as many places as lines of code that log.
        self._places: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        if record.levelno < logging.WARNING:
            return True
        place = (record.name, record.pathname, record.lineno)
        now = monotonic()
        whole_at, held_back = self._places.get(place, (now, 0))
        whole_at = max(whole_at, now)
        if (whole_at - now) * _LINES_PER_SECOND > _BURST - 1:
            self.suppressed += 1
            self._places[place] = (whole_at, held_back + 1)
            return False
        if held_back:
            record.suppressed = held_back
        self._places[place] = (whole_at + 1 / _LINES_PER_SECOND, 0)
        return True


_flood = Flood()


def suppressed_lines() -> int:
    """Return how many lines were held back since the start."""
    return _flood.suppressed


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Say whether a record is none of gRPC's on metadata it can't decode: those quote it in full.

    It may be a credential, and a stranger could fill the log.
    """
    return not str(record.msg).startswith("Invalid encoding on")


def configure_logging(level: str, **always: int) -> None:
    """Send everything at ``level`` or above to standard error, as JSON, with what is to be on it.

    Args:
        level: in any case.
        always: fields of every line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso"),
                lambda _logger, _method, fields: {**fields, **always},
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Without local variables: a traceback must not show what a function held.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    handler.addFilter(_flood)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # A library's warning, such as one about a caller's certificate, is a line of JSON as well.
    logging.captureWarnings(capture=True)
    if isinstance(sys.stderr, LineWriter):
        sys.stderr.tell_dropped = lambda count: handler.format(
            _log.makeRecord(
                _log.name,
                logging.WARNING,
                __file__,
                0,
                "%d lines were dropped: standard error was not read, or could not be written",
                (count,),
                None,
            )
        )
    # Pykka tells at "info" of every refusal that it hands to a caller; the caller has been told.
    logging.getLogger("pykka").setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_echo)


def lines_dropped() -> int:
    """Return how many lines for standard output and error were dropped instead of written."""
    return sum(
        stream.dropped for stream in (sys.stdout, sys.stderr) if isinstance(stream, LineWriter)
    )
