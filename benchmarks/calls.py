"""``python -m benchmarks.calls``: the Python calls that one durable Encrypt on a stream takes.

A frame of Encrypts goes through a stream in steady state, without gRPC: the exchange, the router,
the actors, the group commit and a SQLite journal are the service's own. Counted are calls of Python
functions, and beside them those of C functions, divided by the operations of the frame; the event
loop's thread and the journal's apart. A *move* is a change of file, by a call or by its return,
among the files below ``connect_actor/``. Files are those with a call for each operation. Counts
hardly depend on the machine.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import connect_actor
from benchmarks.in_process import encrypts, in_process, require_answered
from connect_actor.persistence.contract import Journal

__all__ = ["Calls", "count_calls", "main"]

_SERVICE = str(Path(connect_actor.__file__).parent) + os.sep
_FRAMES_BEFORE = 5
_NO_SNAPSHOTS = 10_000


class Calls:
    """Counts the Python calls of a thread for which ``profile`` is the profile function."""

    def __init__(self) -> None:
        """Begin with none."""
        self.calls: Counter[CodeType] = Counter()
        self.c_calls = 0
        self.moves = 0
        self._file = ""

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Count a call: see ``sys.setprofile``."""
        if event == "c_call":
            self.c_calls += 1
            return
        if event == "call":
            self.calls[frame.f_code] += 1
            at: FrameType | None = frame
        elif event == "return":
            at = frame.f_back
        else:
            return
        file = "" if at is None else at.f_code.co_filename
        if file.startswith(_SERVICE) and file != self._file:
            self.moves += 1
            self._file = file

    def files(self, at_least: int) -> set[str]:
        """Return the files below ``connect_actor/`` that were called so often."""
        per_file: Counter[str] = Counter()
        for code, times in self.calls.items():
            if code.co_filename.startswith(_SERVICE):
                per_file[code.co_filename] += times
        return {file for file, times in per_file.items() if times >= at_least}

    def tell(self, name: str, operations: int, *, each: bool) -> None:
        """Print the counts for an operation."""
        total = self.calls.total() / operations
        print(
            f"{name:8} {total:6.1f} calls of Python {self.c_calls / operations:6.1f} of C"
            f" {len(self.files(operations)):3} files {self.moves / operations:6.1f} moves"
        )
        if each:
            for code, times in self.calls.most_common():
                if times * 8 >= operations:
                    place = code.co_filename.removeprefix(_SERVICE)
                    print(f"    {times / operations:6.2f}  {place}: {code.co_qualname}")


def count_calls(operations: int, channels: int) -> tuple[Calls, Calls]:
    """Return the calls of a frame of Encrypts: on the event loop's thread, and the journal's."""
    loop, thread = Calls(), Calls()
    with in_process(snapshot_interval=_NO_SNAPSHOTS) as service:
        frame = encrypts(service.establish(channels), operations, bytes(64))
        with service.open_stream() as stream:
            for _ in range(_FRAMES_BEFORE):
                stream.exchange([frame], operations)
            service.run(service.committer.perform(partial(_set_profile, thread.profile)))
            sys.setprofile(loop.profile)
            try:
                results = stream.exchange([frame], operations)
            finally:
                sys.setprofile(None)
            service.run(service.committer.perform(partial(_set_profile, None)))
            require_answered(results, "encrypt")
    return loop, thread


def _set_profile(profile: Callable[[FrameType, str, Any], None] | None, _: Journal) -> None:
    """Count, or no longer, what the journal's thread calls."""
    sys.setprofile(profile)


def main() -> None:
    """Count, and print what was counted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calls", description="Python calls of one Encrypt on a stream"
    )
    parser.add_argument("--operations", type=int, default=64, help="operations of the frame")
    parser.add_argument("--channels", type=int, default=64, help="channels they are spread over")
    parser.add_argument("--each", action="store_true", help="list the functions")
    arguments = parser.parse_args()
    loop, thread = count_calls(arguments.operations, arguments.channels)
    loop.tell("loop", arguments.operations, each=arguments.each)
    thread.tell("journal", arguments.operations, each=arguments.each)


if __name__ == "__main__":
    main()
