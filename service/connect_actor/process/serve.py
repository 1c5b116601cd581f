"""The command ``connect-actor serve``: from flags to exit code."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from connect_actor.files import AccessFileError
from connect_actor.keys.sources import KeyFileError
from connect_actor.network.addresses import ListenError
from connect_actor.observe.logs import configure_logging
from connect_actor.persistence.contract import JournalError, JournalHangsError
from connect_actor.process.app import OTHER_DESCRIPTORS, serve
from connect_actor.process.exit_codes import CANNOT_START, RIGHT, USAGE
from connect_actor.process.hardening import forbid_dumps, lock_memory
from connect_actor.process.program import detach_output, finish_output, raise_descriptor_limit
from connect_actor.settings import Settings, SettingsError, load_settings

__all__ = ["run", "run_process"]


def run(flags: Sequence[str]) -> int:
    """Run the service until it is told to stop; return the process's exit code."""
    try:
        settings = load_settings(flags)
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return USAGE
    if (descriptors := raise_descriptor_limit()) <= OTHER_DESCRIPTORS:
        sys.stderr.write(
            f"connect-actor: {descriptors} file descriptors are too few: raise the limit (ulimit"
            f" -n) above {OTHER_DESCRIPTORS}\n"
        )
        return CANNOT_START
    detach_output()
    configure_logging(settings.log_level)
    if settings.workers == 1:
        return run_process(settings, lambda: serve(settings))
    if not settings.allow_debugger:
        forbid_dumps()
    from connect_actor.process.supervisor import supervise  # noqa: PLC0415 - only if it is needed

    try:
        return asyncio.run(supervise(settings, flags))
    except ListenError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return CANNOT_START


def run_process(settings: Settings, serving: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a process that serves calls to its end; return its exit code."""
    lock_memory()
    if not settings.allow_debugger:
        forbid_dumps()
    try:
        uvloop.run(serving())
    except JournalHangsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        finish_output()
        # The interpreter would wait for the journal's thread, perhaps for ever.
        os._exit(CANNOT_START)
    except (AccessFileError, JournalError, KeyFileError, ListenError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return CANNOT_START
    return RIGHT
