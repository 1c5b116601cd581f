"""The command ``connect-actor serve``: from flags to exit code."""

import os
import sys
from collections.abc import Sequence

import uvloop

from service.access.files import AccessFileError
from service.app import serve
from service.exit_codes import CANNOT_START, RIGHT, USAGE
from service.keyfiles import KeyFileError
from service.logs import configure_logging
from service.persistence.contract import JournalError, JournalHangsError
from service.process_hardening import forbid_dumps
from service.rpc.server import ListenError
from service.settings import SettingsError, load_settings

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Run the service until it is told to stop; return the process's exit code."""
    try:
        settings = load_settings(flags)
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return USAGE
    configure_logging(settings.log_level)
    if not settings.allow_debugger:
        forbid_dumps()
    try:
        uvloop.run(serve(settings))
    except JournalHangsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        sys.stderr.flush()
        # The interpreter would wait for the journal's thread, perhaps for ever.
        os._exit(CANNOT_START)
    except (AccessFileError, JournalError, KeyFileError, ListenError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return CANNOT_START
    return RIGHT
