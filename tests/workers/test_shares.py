"""Which worker owns a channel, what share of the service it has, and that both stay so."""

from pathlib import Path

import pytest

from connect_actor.process.paths import journal_file, journal_of
from connect_actor.process.shares import LayoutError, require_layout, share_of
from connect_actor.protocol.handshake import connect_id_of
from connect_actor.settings import SettingsError, load_settings
from connect_actor.workers.member import worker_of
from tests.support.channels import establish_request


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_every_channel_has_one_worker_and_shares_are_about_even(workers: int) -> None:
    ids = [connect_id_of(establish_request(seed)[1]) for seed in range(300)]
    owned = [0] * workers
    for connect_id in ids:
        owned[worker_of(connect_id, workers)] += 1
    assert sum(owned) == 300
    # Six standard deviations of the binomial distribution; the ids are always the same.
    spread = 6 * (300 * (1 / workers) * (1 - 1 / workers)) ** 0.5
    assert all(abs(count - 300 / workers) <= spread for count in owned)


@pytest.mark.parametrize(
    ("connect_id", "workers", "expected"),
    [(1, 1, 0), (1, 2, 1), (2**63 - 1, 2, 1), (2**63 - 1, 64, 63), (7, 4, 3)],
)
def test_the_owner_of_a_channel_never_changes(connect_id: int, workers: int, expected: int) -> None:
    assert worker_of(connect_id, workers) == expected


def test_bounds_of_the_service_are_divided_rounded_up_and_others_are_not() -> None:
    settings = load_settings(
        ["--max-live-actors=10", "--max-connections=9", "--max-operations-per-second=100"]
    )
    share = share_of(settings, 4, "127.0.0.1:7")
    assert share.max_live_actors == 3
    assert share.max_connections == 3
    assert share.max_operations_in_service == 1_024
    assert share.max_operations_per_second == 100
    assert share.max_frame_bytes == settings.max_frame_bytes
    assert (share.listen, share.metrics_listen) == ("127.0.0.1:7", "127.0.0.1:0")


def test_a_bound_that_says_any_number_says_so_to_each_worker() -> None:
    assert share_of(load_settings([]), 4, "127.0.0.1:7").max_channels_per_principal == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers=0"], "workers"),
        (["--workers=65"], "workers"),
        (["--workers=2", "--listen=unix:/run/service.sock"], "names a unix socket"),
        (["--workers=2", "--router=awaiting"], "--router awaiting is for one worker"),
    ],
)
def test_workers_that_make_no_sense_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(flags)


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("journal.db", 1),
        ("journal-0-of-2.db", 2),
        ("journal-11-of-12.db", 12),
        ("journal.db-wal", None),
        ("journal-0-of-2.db-lease", None),
        ("journal-x-of-2.db", None),
        ("identity.sealed", None),
    ],
)
def test_a_journals_name_says_how_many_it_is_one_of(name: str, workers: int | None) -> None:
    assert journal_of(name) == workers


def test_one_worker_has_the_journal_that_a_service_has_always_had() -> None:
    assert journal_file(0, 1) == "journal.db"
    assert [journal_file(worker, 2) for worker in range(2)] == [
        "journal-0-of-2.db",
        "journal-1-of-2.db",
    ]


@pytest.mark.parametrize(("made_for", "started_with"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_a_directory_of_another_number_of_workers_is_refused_with_what_to_do(
    tmp_path: Path, made_for: int, started_with: int
) -> None:
    require_layout(tmp_path, started_with)
    (tmp_path / journal_file(0, made_for)).touch()
    require_layout(tmp_path, made_for)
    with pytest.raises(LayoutError, match=f"give --workers {made_for}, or another"):
        require_layout(tmp_path, started_with)
