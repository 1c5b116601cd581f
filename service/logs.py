"""Logging: one JSON object a line on standard error, from the standard library's loggers.

A service has that written by a thread (``service.line_writer``): no logger waits for its reader.

Nothing secret is ever handed to a logger; payloads and keys have no place in a message.
"""

import logging
import sys

import structlog

from service.line_writer import LineWriter

__all__ = ["configure_logging", "lines_dropped"]

_log = logging.getLogger(__name__)


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
