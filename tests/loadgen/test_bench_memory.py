"""A session that goes on and on keeps nothing: told by blocks alive, and by a planted leak."""

import statistics

import pytest

from connect_loadgen.bench.endurance import blocks_by_stretch, converse
from connect_loadgen.bench.sessions import Ends, make_ends
from connect_loadgen.bench.suite import SUITE

STRETCHES = 8
MESSAGES = 100
LONG_SESSION = "long session: 500 messages each way and memory flat"


def blocks_a_message(alive: list[int]) -> float:
    """Return the slope: how many blocks more there are for each message each way."""
    messages = [MESSAGES * (number + 1) for number in range(len(alive))]
    return statistics.linear_regression(messages, alive).slope


@pytest.fixture(scope="module")
def ends() -> Ends:
    """A channel on which every cache is full and every free list filled."""
    ends = make_ends()
    converse(ends, 400)
    return ends


def test_a_long_session_keeps_nothing(ends: Ends) -> None:
    # One object kept for each turn of the ratchet, every tenth message, would be 0.1.
    assert abs(blocks_a_message(blocks_by_stretch(ends, STRETCHES, MESSAGES))) < 0.02


def test_what_is_kept_for_every_tenth_message_shows(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytearray] = []
    count = 0
    reply = Ends.reply

    def leak(self: Ends, plaintext: bytes) -> object:
        nonlocal count
        count += 1
        if count % 10 == 0:
            kept.append(bytearray(1))
        return reply(self, plaintext)

    monkeypatch.setattr(Ends, "reply", leak)
    assert blocks_a_message(blocks_by_stretch(ends, STRETCHES, MESSAGES)) > 0.1
    with pytest.raises(ArithmeticError, match="memory flat"):
        SUITE[LONG_SESSION].require_right()
