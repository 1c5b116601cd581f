"""The same world, driven by hypothesis: what it finds, it shrinks to the fewest steps."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connect_actor.persistence.strategies import STRATEGIES
from tests.simulation.mutants import MUTANTS
from tests.simulation.process import Shape
from tests.simulation.storage import Fault, Plan
from tests.simulation.world import DEFECTS, Violation, World

_CHANNELS = 2
_slots = st.integers(0, _CHANNELS - 1)
_positions = st.integers(0, 7)
_shapes = st.builds(
    Shape,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    awaiting=st.booleans(),
    channels=st.just(_CHANNELS),
    snapshot_interval=st.integers(1, 4),
    turn_every=st.integers(1, 3),
    permits=st.integers(1, 2),
    max_waiting_recoveries=st.integers(1, 2),
)
_SETTINGS = settings(
    max_examples=100,
    stateful_step_count=60,
    # The same in every run: new ones are sought with other seeds, by make simulate.
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class ServiceMachine(RuleBasedStateMachine):
    """Every rule is a step of the world, which checks itself after each."""

    def __init__(self) -> None:
        super().__init__()
        self._end = ExitStack()
        self._broken = False
        self.world: World

    @initialize(shape=_shapes)
    def begin(self, shape: Shape) -> None:
        self.world = self._end.enter_context(World(shape, 0))
        for slot in range(_CHANNELS):
            self.world.establish(slot)

    @precondition(lambda self: self.world.ready)
    @rule(position=_positions)
    def run_callback(self, position: int) -> None:
        self._step(lambda: self.world.run_callback(position % self.world.ready))

    @precondition(lambda self: self.world.jobs)
    @rule()
    def run_journal(self) -> None:
        self._step(self.world.run_journal)

    @precondition(lambda self: self.world.jobs)
    @rule(fault=st.sampled_from(Fault), at=st.integers(0, 2))
    def run_journal_with_a_fault(self, fault: Fault, at: int) -> None:
        self._step(lambda: self.world.run_journal(Plan(fault, at)))

    @rule()
    def pass_time(self) -> None:
        self._step(self.world.pass_time)

    @rule(slot=_slots)
    def establish(self, slot: int) -> None:
        self._step(lambda: self.world.establish(slot))

    @rule(slot=_slots, late=st.booleans())
    def encrypt(self, slot: int, late: bool) -> None:  # noqa: FBT001 - hypothesis names it
        self._step(lambda: self.world.encrypt(slot, late=late))

    @rule(slot=_slots)
    def seal(self, slot: int) -> None:
        self._step(lambda: self.world.seal(slot))

    @rule(slot=_slots, position=_positions)
    def deliver(self, slot: int, position: int) -> None:
        self._step(lambda: self.world.deliver(slot, position))

    @rule(slot=_slots, position=_positions)
    def deliver_again(self, slot: int, position: int) -> None:
        self._step(lambda: self.world.deliver_again(slot, position))

    @rule(slot=_slots, position=_positions, how=_positions)
    def deliver_forged(self, slot: int, position: int, how: int) -> None:
        self._step(lambda: self.world.deliver_forged(slot, position, how))

    @rule(slot=_slots, position=_positions)
    def open(self, slot: int, position: int) -> None:
        self._step(lambda: self.world.open(slot, position))

    @rule(slot=_slots)
    def restore(self, slot: int) -> None:
        self._step(lambda: self.world.restore(slot))

    @rule(slot=_slots)
    def close(self, slot: int) -> None:
        self._step(lambda: self.world.close(slot))

    @rule(position=_positions, what=_positions)
    def disturb(self, position: int, what: int) -> None:
        self._step(lambda: self.world.disturb(position, what))

    @rule(slot=_slots)
    def write_from_elsewhere(self, slot: int) -> None:
        self._step(lambda: self.world.write_from_elsewhere(slot))

    @rule(slot=_slots)
    def damage(self, slot: int) -> None:
        self._step(lambda: self.world.damage(slot))

    @rule(where=st.sampled_from(DEFECTS))
    def plant_defect(self, where: str) -> None:
        self._step(lambda: self.world.plant_defect(where))

    @rule()
    def crash(self) -> None:
        self._step(self.world.crash)

    @rule()
    def stop(self) -> None:
        self._step(self.world.stop)

    def _step(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Violation:
            self._broken = True
            raise

    def teardown(self) -> None:
        with self._end:
            if hasattr(self, "world") and not self._broken:
                self.world.settle()


def test_every_rule_holds_whatever_hypothesis_tries() -> None:
    run_state_machine_as_test(ServiceMachine, settings=_SETTINGS)


def test_hypothesis_finds_and_shrinks_a_broken_rule() -> None:
    with MUTANTS["answers_before_the_commit"](), pytest.raises(Violation) as found:
        run_state_machine_as_test(ServiceMachine, settings=settings(_SETTINGS, max_examples=30))
    # Little more than what it takes: establish, and let the callbacks run.
    assert sum("run_callback" in line for line in found.value.__notes__[0].splitlines()) <= 4
