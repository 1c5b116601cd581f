"""Schedules: a seed decides what kind of world it is, and each step in it.

As in swarm testing, each seed has only some of the faults, at rates of its own: where every fault
is always about, none gets far.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from connect_actor.persistence.strategies import STRATEGIES
from tests.simulation.process import Shape
from tests.simulation.storage import NO_FAULT, Fault, Plan
from tests.simulation.world import DEFECTS, Violation, World

__all__ = ["Outcome", "run_schedule"]

_STEPS = 140
# A round has some calls: a commit, what its snapshots replace, reads.
_CALLS = (0, 0, 0, 0, 0, 1, 1, 2)


@dataclass(frozen=True)
class Outcome:
    """What a schedule came to."""

    seed: int
    digest: str
    """Of its trace: the same seed has the same."""
    steps: int
    commands: int
    answers: Counter[str]
    faults: Counter[str]
    violation: str | None


def _shape(rng: random.Random) -> Shape:
    return Shape(
        strategy=rng.choice(sorted(STRATEGIES)),
        awaiting=rng.random() < 0.15,
        channels=rng.choice((1, 2, 3, 5)),
        snapshot_interval=rng.choice((1, 2, 3, 5, 50)),
        turn_every=rng.choice((1, 2, 5)),
        permits=rng.choice((1, 1, 2)),
        max_waiting_recoveries=rng.choice((1, 2, 10)),
        recovery_wait_timeout=rng.choice((0.5, 3.0)),
        journal_timeout=rng.choice((1.0, 2.0, 5.0)),
        idle_timeout=rng.choice((0.5, 4.0, 60.0)),
        max_waiting_writes=rng.choice((2, 20, 1_000)),
        commit_delay=rng.choice((0.0, 0.01)),
    )


class _Driver:
    """Draws one step after another."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng

        def swarm(rate: float) -> float:
            return rng.choice((0.0, 0.0, rate, 4 * rate))

        self._journal_fault = rng.choice((0.0, 0.1, 0.4))
        self._faults = [fault for fault in Fault if fault is not Fault.NONE and rng.random() < 0.5]
        self._steps: list[tuple[float, Callable[[], object]]] = [
            (10.0, self._callback),
            (rng.choice((1.0, 4.0, 10.0)), self._journal),
            (rng.choice((0.05, 0.2, 1.0)), world.pass_time),
            (8.0, self._command),
            (rng.choice((0.0, 1.0, 3.0)), self._frame),
            (1.0, lambda: world.open(self._slot(), self._position())),
            (swarm(0.05), world.crash),
            (swarm(0.03), world.stop),
            (swarm(0.05), lambda: world.plant_defect(rng.choice(DEFECTS))),
            (swarm(0.03), lambda: world.damage(self._slot())),
            (swarm(0.2), lambda: world.write_from_elsewhere(self._slot())),
            (swarm(0.1), lambda: world.close(self._slot())),
            (swarm(0.1), lambda: world.disturb(self._position(), self._position())),
        ]
        self._weights = [weight for weight, _ in self._steps]
        self._malice = rng.choice((0.0, 0.1, 0.4))
        self._haste = rng.choice((0.0, 0.1))

    def step(self) -> None:
        self._rng.choices(self._steps, self._weights)[0][1]()

    def _slot(self) -> int:
        return self._rng.randrange(len(self._world.peers))

    def _position(self) -> int:
        return self._rng.randrange(8)

    def _late(self) -> bool:
        return self._rng.random() < self._haste

    def _callback(self) -> None:
        if self._world.ready:
            self._world.run_callback(self._rng.randrange(self._world.ready))
        else:
            self._journal()

    def _journal(self) -> None:
        if not self._world.jobs:
            return
        plan = NO_FAULT
        if self._faults and self._rng.random() < self._journal_fault:
            plan = Plan(self._rng.choice(self._faults), self._rng.choice(_CALLS))
        self._world.run_journal(plan)

    def _command(self) -> None:
        world, slot = self._world, self._slot()
        if world.peers[slot].session is None and self._rng.random() < 0.3:
            world.establish(slot)
        elif self._rng.random() < self._malice:
            if self._rng.random() < 0.5:
                world.deliver_again(slot, self._position())
            else:
                world.deliver_forged(slot, self._position(), self._position())
        else:
            self._rng.choice(
                (self._encrypt, self._encrypt, self._decrypt, self._decrypt, self._rest)
            )(slot)

    def _frame(self) -> None:
        """Some commands at once, as a frame brings them: nothing runs between."""
        for _ in range(self._rng.choice((2, 3, 8))):
            self._command()

    def _encrypt(self, slot: int) -> None:
        self._world.encrypt(slot, late=self._late())

    def _decrypt(self, slot: int) -> None:
        self._world.seal(slot)
        self._world.deliver(slot, self._rng.choice((-1, -1, 0, 1)), late=self._late())

    def _rest(self, slot: int) -> None:
        self._rng.choice((self._world.restore, self._world.seal, self._world.establish))(slot)


def run_schedule(
    seed: int, *, steps: int = _STEPS, watch: Callable[[str], None] | None = None
) -> Outcome:
    """Run the schedule of a seed to its end, or to the first rule that is broken.

    Args:
        seed: decides everything.
        steps: until the faults cease.
        watch: is told each line of the trace.
    """
    rng = random.Random(seed)
    violation = None
    with World(_shape(rng), seed, watch) as world:
        driver = _Driver(world, rng)
        try:
            for _ in range(steps):
                driver.step()
            world.settle()
        except Violation as error:
            violation = str(error)
    return Outcome(
        seed,
        world.digest,
        world.steps,
        world.ledger.commands,
        world.ledger.answers,
        world.faults + world.journal.faults,
        violation,
    )
