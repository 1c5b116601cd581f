"""The short form of ``python -m tests.attacks``: the victim is served, and memory stays bounded."""

import pytest

from tests.attacks.arena import MAX_BYTES, attack_and_watch
from tests.attacks.attacks import ATTACKS

# docs/results/overload.md: the bound on bytes holds for each of requests and answers, messages on
# their way, buffers of open calls, and buffers of calls that wait to be taken up.
_FACTOR = 4
# What a service writes to its log when it starts, with room for lines about an attack that are
# held back after a while.
_LOG_BYTES = 100_000


@pytest.mark.parametrize("name", ATTACKS)
def test_a_victim_is_served_during_an_attack_and_what_it_holds_is_bounded(name: str) -> None:
    report = attack_and_watch(ATTACKS[name], seconds=0.3)
    assert report.alone.failed == 0
    assert report.attacked.seconds, "no call was served during the attack"
    assert report.afterwards.failed == 0
    assert report.held_bytes < _FACTOR * MAX_BYTES
    assert report.log_bytes < _LOG_BYTES
