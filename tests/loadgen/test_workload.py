"""What is asked of the service: repeatable, and mixed as it was asked for."""

import math
from collections import Counter
from itertools import islice

import pytest

from connect_loadgen.drive.workload import Kind, PlannedOperation, Workload
from connect_loadgen.settings.load import RunSettings, load_settings

MANY = 20_000


def planned(*flags: str, count: int = MANY) -> list[PlannedOperation]:
    workload = Workload.of(load_settings(RunSettings, list(flags)))
    return list(islice(workload.operations(), count))


def share(count: int) -> float:
    return count / MANY


def test_the_same_seed_gives_the_same_sequence() -> None:
    assert planned("--seed=7", count=3_000) == planned("--seed=7", count=3_000)


def test_another_seed_gives_another_sequence() -> None:
    assert planned("--seed=7", count=100) != planned("--seed=8", count=100)


def test_the_weights_set_the_mix() -> None:
    weights = ("--encrypt-weight=1", "--decrypt-weight=2", "--round-trip-weight=5")
    kinds = Counter(operation.kind for operation in planned(*weights))
    assert abs(share(kinds[Kind.ENCRYPT]) - 1 / 8) < 0.02
    assert abs(share(kinds[Kind.DECRYPT]) - 2 / 8) < 0.02
    assert abs(share(kinds[Kind.ROUND_TRIP]) - 5 / 8) < 0.02


def test_a_weight_of_nothing_leaves_a_kind_out() -> None:
    kinds = {operation.kind for operation in planned("--encrypt-weight=0")}
    assert kinds == {Kind.DECRYPT}


def test_every_channel_gets_its_share() -> None:
    channels = Counter(operation.channel for operation in planned("--channels=4"))
    assert sorted(channels) == [0, 1, 2, 3]
    assert all(abs(share(count) - 1 / 4) < 0.02 for count in channels.values())


def test_each_payload_size_is_as_likely_as_another() -> None:
    sizes = Counter(len(operation.payload) for operation in planned("--payload-bytes=0,64,300"))
    assert sorted(sizes) == [0, 64, 300]
    assert all(abs(share(count) - 1 / 3) < 0.02 for count in sizes.values())


def test_payloads_differ_so_that_no_answer_can_pass_for_another() -> None:
    payloads = {operation.payload for operation in planned("--payload-bytes=64", count=500)}
    # Two of them begin at the same of a million places now and then.
    assert len(payloads) >= 495


def test_payload_sizes_follow_the_distribution_that_is_asked_for() -> None:
    sizes = sorted(len(each.payload) for each in planned("--payload-bytes=lognormal:200:0.5"))
    assert sizes[MANY // 2] == pytest.approx(200, rel=0.05)
    # One sigma above the median lie 16 %.
    assert sizes[int(MANY * 0.84)] == pytest.approx(200 * math.exp(0.5), rel=0.05)


def test_skewed_channels_are_chosen_as_zipf_has_it() -> None:
    chosen = Counter(each.channel for each in planned("--channels=4", "--channel-skew=1"))
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    for channel in range(4):
        assert share(chosen[channel]) == pytest.approx(1 / (channel + 1) / total, abs=0.02)


def test_a_share_of_the_peers_messages_is_held_back_by_up_to_so_many() -> None:
    operations = planned("--out-of-order=0.25", "--hold-back=3", "--encrypt-weight=0")
    held = Counter(operation.overtaken_by for operation in operations)
    assert sorted(held) == [0, 1, 2, 3]
    assert abs(share(held[0]) - 0.75) < 0.02
    assert all(abs(share(held[number]) - 0.25 / 3) < 0.02 for number in (1, 2, 3))


def test_only_what_a_peer_sends_unasked_is_held_back() -> None:
    operations = planned("--out-of-order=0.5", "--round-trip-weight=1")
    held = {operation.kind for operation in operations if operation.overtaken_by}
    assert held == {Kind.DECRYPT}
