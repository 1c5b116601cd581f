"""Power fails at every place of the workload: to be run under the shim.

The workload is recorded; at every place of the recording, what could be left on the disk is made
and recovered by a new journal, which must say what was acknowledged by then, whole. Some of these
recoveries are recorded in their turn, and cut off as well. The same is done with recordings in
which syncs have failed.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from connect_actor.persistence.contract import JournalVersionError
from connect_actor.persistence.sqlite import journal as journals
from tests.faults.disk import Disk, Files, Operation, load, mark, read_trace, save
from tests.faults.error_loop import scratch
from tests.faults.shim import FAULTS, Call, Shim
from tests.faults.workload import STATES, Run, World, WrongError, world
from tests.support.journals import EAGER_UPKEEP, sqlite_journal

__all__ = ["Plan", "main"]

_FAILED_SYNC = next(fault for fault in FAULTS if fault.call is Call.SYNC)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is tried."""

    seed: int
    random_images: int
    """Random images for each place, beside those that are always made."""
    again: int
    """One in so many recoveries is cut off."""
    failed_syncs: int = 0
    """One in so many syncs fails, each in recordings of its own; 0: none."""
    deaf: bool = False
    """Whether the disk lies about syncs: what then is lost must be noticed."""


@dataclass(slots=True)
class Figures:
    """What was tried, and what went wrong."""

    recordings: int = 0
    operations: int = 0
    syncs_failed: int = 0
    images: int = 0
    """Different ones, all of which were recovered."""
    cut_off_again: int = 0
    """Images of recoveries that were cut off, recovered as well."""
    refused: int = 0
    """Images of a journal in the making, in which syncs had failed, that were refused."""
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Recording:
    name: str
    operations: list[Operation]
    fails: bool
    """Whether syncs fail in it."""
    fits: bool
    """Whether the files were at every mark what the recording says."""


class _Bench:
    def __init__(self, shim: Shim, plan: Plan) -> None:
        self._shim = shim
        self.plan = plan
        self._recoveries = 0
        self._may_refuse = False
        self.figures = Figures()

    # --- Recording --------------------------------------------------------------------------------

    def record(self, name: str, failing: int = 0, times: int = 0) -> _Recording:
        """Run the workload with some syncs failing, and return what happened on the disk."""
        with scratch() as directory, scratch() as beside:
            trace = Path(beside, "trace")
            found: list[Files] = []

            def progress(what: str, steps: int) -> None:
                with trace.open("ab") as file:
                    file.write(mark(f"{what} {steps}"))
                found.append(load(Path(directory)))

            self._shim.watch(Path(directory))
            self._shim.record(trace)
            if failing:
                self._shim.fail(_FAILED_SYNC, failing, times)
            run = Run(Path(directory, "journal.db"), progress)
            try:
                run.go()
            except WrongError as error:
                # The error loop judges this; here it is only where the recording ends.
                if not failing:
                    self.figures.wrong.append(f"{name}: {error!r}")
            self.figures.syncs_failed += self._shim.failed if failing else 0
            run.abandon()
            unseen = self._shim.unseen
            self._shim.ignore()
            operations = read_trace(trace)
        self.figures.recordings += 1
        self.figures.operations += len(operations)
        return _Recording(name, operations, failing > 0, not unseen and _fits(operations, found))

    # --- Crashing ---------------------------------------------------------------------------------

    def crash(self, recording: _Recording) -> None:
        """Recover all that a crash could leave, at every place of a recording."""
        plan = self.plan
        if not recording.fits:
            self.figures.wrong.append(f"{recording.name}: it does not tell all")
        disk = Disk(deaf=plan.deaf)
        seen: set[int] = set()
        allowed = [STATES[0]]
        failed = False
        for place, operation in enumerate(recording.operations):
            if operation.kind == "M":
                what, steps = operation.name.split()
                allowed = STATES[int(steps) : int(steps) + (2 if what == "begin" else 1)]
            disk.apply(operation)
            failed = failed or operation.kind == "F"
            if recording.fails and not failed:
                # So far it is like the others.
                continue
            self._may_refuse = failed and allowed[0] == STATES[0]
            source = random.Random(f"{plan.seed} {recording.name} {place}")
            for number, (choice, fill) in enumerate(disk.choices(source, plan.random_images)):
                image = disk.image(choice, fill)
                key = hash((*sorted(image.items()), STATES.index(allowed[0]), len(allowed)))
                if key in seen:
                    continue
                seen.add(key)
                where = f"seed {plan.seed}, {recording.name}, place {place}, image {number}"
                self._recover(image, allowed, where)

    def _recover(self, image: Files, allowed: list[World], where: str) -> None:
        self.figures.images += 1
        self._recoveries += 1
        again = not self._recoveries % self.plan.again
        with scratch() as directory, scratch() as beside:
            save(image, Path(directory))
            if again:
                self._shim.watch(Path(directory))
                self._shim.record(Path(beside, "trace"))
            said = self._look(Path(directory), allowed, where)
            if again and said is not None:
                self._shim.ignore()
                self._crash_again(image, said, read_trace(Path(beside, "trace")), where)

    def _crash_again(
        self, image: Files, said: World, recovery: list[Operation], where: str
    ) -> None:
        """Cut a recovery off; the next one must come to what it would have come to."""
        disk = Disk(base=image, deaf=self.plan.deaf)
        source = random.Random(f"{where}, again")
        for operation in recovery:
            disk.apply(operation)
            choice, fill = source.choice(list(disk.choices(source, 1)))
            with scratch() as directory:
                save(disk.image(choice, fill), Path(directory))
                self.figures.cut_off_again += 1
                self._look(Path(directory), [said], f"{where}, cut off again")

    def _look(self, directory: Path, allowed: list[World], where: str) -> World | None:
        """Return what a journal says, or None if that is wrong."""
        try:
            journal = sqlite_journal(directory / "journal.db")
            try:
                said = world(journal)
            finally:
                journal.close()
        except JournalVersionError as error:
            if self._may_refuse:
                self.figures.refused += 1
            else:
                self.figures.wrong.append(f"{where}: {error!r}")
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the journal was to open
            self.figures.wrong.append(f"{where}: {error!r}")
            return None
        if said not in allowed:
            steps = STATES.index(said) if said in STATES else "nothing that ever was"
            least = STATES.index(allowed[0])
            self.figures.wrong.append(f"{where}: has {steps}, acknowledged were {least} steps")
            return None
        return said


def _fits(operations: list[Operation], found: list[Files]) -> bool:
    """Return whether at each mark the files were what a recording says, nothing being lost."""
    disk = Disk()
    files = iter(found)
    for operation in operations:
        disk.apply(operation)
        if operation.kind == "M" and disk.image(dict.fromkeys(disk.loose, -1)) != next(files):
            return False
    return True


def _failures(syncs: int, plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield the first of the syncs that fail, and how many do."""
    if plan.failed_syncs:
        for first in range(1, syncs + 1, plan.failed_syncs):
            # After a third one, at the reopening, it may be refused: docs/results/faults.md.
            for times in (1, 2):
                yield first, times


def main() -> int:
    """Print figures as JSON; ``wrong`` says what did go wrong."""
    for name, value in EAGER_UPKEEP.items():
        setattr(journals, name, value)
    bench = _Bench(Shim(Path(os.environ["FAULTS_CONTROL"])), Plan(**json.loads(sys.argv[1])))
    plain = bench.record("all goes well")
    bench.crash(plain)
    syncs = sum(operation.kind == "S" for operation in plain.operations)
    for first, times in _failures(syncs, bench.plan):
        bench.crash(bench.record(f"{times} failed from sync {first}", first, times))
    print(json.dumps(asdict(bench.figures)))  # noqa: T201 - to the test that runs this
    return 0


if __name__ == "__main__":
    sys.exit(main())
