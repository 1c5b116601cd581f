"""Every call of the workload fails once, and fails from then on: to be run under the shim.

For each kind of fault the Nth call fails, for N = 1 and so on until a run has no Nth call. A run
goes on after a failure as long as the journal comes back; then the disk heals, and what was
acknowledged must be there, nothing in part, and the rest of the workload must succeed.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from connect_actor.persistence.sqlite import journal as journals
from tests.faults.shim import FAULTS, Call, Fault, Shim
from tests.faults.workload import COMMITS, Run
from tests.support.journals import EAGER_UPKEEP

__all__ = ["main", "scratch"]

# How many calls fail in a row; -1: all from then on.
_TIMES = (1, 2, -1)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a directory in memory, where there is such a thing: the real disk plays no part."""
    memory = Path("/dev/shm")  # noqa: S108 - the directory made in it is private
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


@dataclass
class Figures:
    """What was tried, and what went wrong."""

    runs: Counter[str] = field(default_factory=Counter)
    """By kind of fault, runs with such a fault."""
    reported: Counter[str] = field(default_factory=Counter)
    """Those of them in which the journal reported a failure."""
    injected: int = 0
    """Calls that failed."""
    wrong: list[str] = field(default_factory=list)
    """Something acknowledged was lost, something else was there, or the journal did not recover."""
    silent: list[str] = field(default_factory=list)
    """A commit was acknowledged though a sync had failed."""
    misnamed: list[str] = field(default_factory=list)
    """A failure was reported as something else than what it is."""


def _try(shim: Shim, fault: Fault, first: int, times: int, figures: Figures) -> int:
    """Return how many calls failed."""
    where = f"{fault.name}: call {first}, {times} times"
    before = 0

    def progress(what: str, steps: int) -> None:
        nonlocal before
        if what == "begin":
            before = shim.failed
        elif (
            what == "done" and fault.call is Call.SYNC and steps in COMMITS and shim.failed > before
        ):
            figures.silent.append(f"{where}: step {steps}")

    with scratch() as directory:
        shim.watch(Path(directory))
        shim.fail(fault, first, times)
        run = Run(Path(directory, "journal.db"), progress)
        try:
            run.go()
            failed = shim.failed
            run.abandon()
            shim.ignore()
            run.finish()
        except Exception as error:  # noqa: BLE001 - what a failing disk explains never gets here
            failed = shim.failed
            figures.wrong.append(f"{where}: {error!r}")
            shim.ignore()
    figures.misnamed += [f"{where}: {error}" for error in run.misnamed]
    if failed:
        figures.injected += failed
        figures.runs[fault.name] += 1
        figures.reported[fault.name] += run.reported > 0
    return failed


def main() -> int:
    """Print figures as JSON."""
    for name, value in EAGER_UPKEEP.items():
        setattr(journals, name, value)
    stride = int(sys.argv[1])
    shim = Shim(Path(os.environ["FAULTS_CONTROL"]))
    figures = Figures()
    for fault in FAULTS:
        for times in _TIMES:
            first = 1
            while _try(shim, fault, first, times, figures):
                first += stride
    print(json.dumps(vars(figures)))  # noqa: T201 - to the test that runs this
    return 0


if __name__ == "__main__":
    sys.exit(main())
