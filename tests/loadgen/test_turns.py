"""Loops that take turns by the wall clock, on a clock that only the test moves."""

import random

from connect_loadgen.drive.pacing import Line, LoopName, closed_loop, open_loop
from connect_loadgen.drive.peer import Peers
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.turns import take_turns
from connect_loadgen.drive.workload import Kind
from connect_loadgen.settings.arrivals import Arrivals, Schedule
from tests.support.loads import EchoEnd, PacedService, plan_of
from tests.support.virtual_time import SECOND, VirtualClock, run_virtually

TURN = 60
RATE = 10

# A round number of turns since the epoch, an even one: the open loop's.
EPOCH = 1_000_000 * 2 * TURN


class Seen:
    """What one generator did, when: seconds of the wall clock since ``EPOCH``."""

    def __init__(self) -> None:
        self.turns: list[tuple[LoopName, float, float]] = []
        """Loop, its begin, and the seconds it was given."""
        self.sent: dict[LoopName, int] = {"open": 0, "closed": 0}


def alternate(begins: float, seconds: float, *, stop_at: float | None = None) -> Seen:
    """Run a generator that starts ``begins`` seconds after ``EPOCH``."""

    async def work(clock: VirtualClock) -> Seen:
        seen = Seen()
        recorder = Recorder(clock(), clock() + int(seconds * SECOND))
        peers = Peers([EchoEnd()], plan_of(Kind.ENCRYPT))
        service = PacedService(seconds=0.1)
        line = Line(peers, service, recorder, clock)
        service.listen(line)
        started = clock()

        def wall() -> float:
            return EPOCH + begins + (clock() - started) / SECOND

        async def equal(left: float) -> None:
            seen.turns.append(("open", wall() - EPOCH, left))
            before = recorder.sent
            times = Arrivals.parse(str(RATE)).times(left, random.Random(1), 0.0)
            await open_loop(line, schedule=Schedule(times, line.now()), max_in_flight=100)
            seen.sent["open"] += recorder.sent - before

        async def limit(left: float) -> None:
            seen.turns.append(("closed", wall() - EPOCH, left))
            before = recorder.sent
            await closed_loop(line, concurrency=5)
            seen.sent["closed"] += recorder.sent - before
            if stop_at is not None and wall() - EPOCH >= stop_at:
                line.stop("enough")

        await take_turns(line, TURN, (equal, limit), wall)
        return seen

    return run_virtually(work)


def rounded(seen: Seen) -> list[tuple[str, int, int]]:
    return [(loop, round(begin), round(left)) for loop, begin, left in seen.turns if left > 0.01]


def test_each_loop_has_its_turn_and_its_whole_load() -> None:
    seen = alternate(0, 4 * TURN)
    assert rounded(seen) == [
        ("open", 0, TURN),
        ("closed", TURN, TURN),
        ("open", 2 * TURN, TURN),
        ("closed", 3 * TURN, TURN),
    ]
    assert seen.sent["open"] == 2 * TURN * RATE
    # Five in flight, each for a tenth of a second.
    assert abs(seen.sent["closed"] - 2 * TURN * 50) <= 2 * 5


def test_generators_that_start_at_different_times_change_over_at_the_same_time() -> None:
    early, late = alternate(7, 3 * TURN), alternate(50, 3 * TURN)
    assert [begin for _, begin, _ in rounded(early)][1:] == [TURN, 2 * TURN, 3 * TURN]
    assert [begin for _, begin, _ in rounded(late)][1:] == [TURN, 2 * TURN, 3 * TURN]


def test_one_that_starts_in_the_other_loops_turn_begins_with_what_is_left_of_it() -> None:
    assert rounded(alternate(TURN + 45, 30)) == [
        ("closed", TURN + 45, 15),
        ("open", 2 * TURN, TURN),
    ]


def test_an_early_end_ends_the_turns() -> None:
    seen = alternate(0, 10 * TURN, stop_at=2 * TURN)
    assert [loop for loop, _, _ in rounded(seen)] == ["open", "closed"]
