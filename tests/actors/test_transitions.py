"""The table of transitions is whole: what a phase reports leads somewhere, and to the end."""

import re
from pathlib import Path

from connect_actor.actors.connect import TRANSITIONS
from connect_actor.actors.phases import reports
from connect_actor.actors.phases.awaiting_permit import AwaitingPermit
from connect_actor.actors.phases.leaving import Stopping
from connect_actor.actors.phases.phase import Phase

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"


def test_the_documentation_draws_the_table() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(drawn) == sorted(
        (phase.__name__, target.__name__, report.__name__)
        for (phase, report), (target, _) in TRANSITIONS.items()
    )


def test_every_report_leads_to_a_phase() -> None:
    assert {report.__name__ for _, report in TRANSITIONS} == set(reports.__all__)


def test_every_phase_is_reached_from_the_first_and_can_stop() -> None:
    following: dict[type[Phase], set[type[Phase]]] = {}
    for (phase, _), (target, _) in TRANSITIONS.items():
        following.setdefault(phase, set()).add(target)

    def reached(phase: type[Phase]) -> set[type[Phase]]:
        found, to_see = {phase}, [phase]
        while to_see:
            fresh = following.get(to_see.pop(), set()) - found
            found |= fresh
            to_see += fresh
        return found

    phases = {phase for phase, _ in TRANSITIONS} | {Stopping}
    assert reached(AwaitingPermit) == phases
    assert all(Stopping in reached(phase) for phase in phases)
    assert Stopping not in following
