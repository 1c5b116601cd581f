"""To everyone but its owner a channel does not exist: same answer, same work as an unknown id."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest

from connect_actor.access.principals import principal_named
from connect_actor.actors.commands import Close, Command, Decrypt, Encrypt, Establish, Restore
from connect_actor.actors.router import _Live
from connect_actor.errors import (
    ActorCrashedError,
    ChannelExistsError,
    ChannelNotFoundError,
    ConnectError,
    HandshakeRefusedError,
    OverloadedError,
    QuotaExceededError,
)
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.committer import Standing
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import Differential
from connect_actor.protocol.handshake import connect_id_of
from connect_actor.reply import AwaitedReply
from connect_actor.rpc.status import status_of
from tests.support.channels import establish_request
from tests.support.house import House, PeerEnd, answer, until
from tests.support.journals import KINDS, Script, scripted_journal

ALICE = principal_named("alice").owner
BOB = principal_named("bob").owner
UNKNOWN = 123_456


@dataclass
class Work:
    """What the service has done so far, as far as it can be counted."""

    looked_up: int
    heights: int
    recoveries: int
    commits: int
    rounds: int
    started: int
    passivated: int
    turns: int


def work_of(house: House, journal: Script) -> Work:
    return Work(
        len(journal.looked_up),
        journal.heights,
        len(journal.recoveries),
        len(journal.batches),
        house.committer.statistics.rounds,
        house.statistics.started,
        house.statistics.passivated,
        sum(house.dispatcher.mailboxes.depths),
    )


@pytest.fixture(params=KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    return scripted_journal(request.param, tmp_path)


@pytest.fixture
async def house(journal: Script) -> AsyncIterator[House]:
    house = House(journal)
    yield house
    journal.gate.set()
    await house.close()


def reopened(journal: Script, directory: Path) -> Script:
    """Return a closed journal anew; what is in memory is all there is of it."""
    return journal if isinstance(journal, MemoryJournal) else scripted_journal("sqlite", directory)


def passivate(house: House, channel: PeerEnd) -> None:
    live = house.router._channels[channel.connect_id]
    assert isinstance(live, _Live)
    house.router._passivate(channel.connect_id, live)


def status_bytes(error: ConnectError) -> bytes:
    status: bytes = status_of(error).SerializeToString(deterministic=True)
    return status


async def refusal(house: House, connect_id: int, command: Command, owner: bytes) -> bytes:
    """Return the status that a command is refused with, as it goes over the wire."""
    with pytest.raises(ConnectError) as caught:
        await answer(house.ask(connect_id, command, owner))
    return status_bytes(caught.value)


async def settled(house: House) -> None:
    """Wait until the journal has nothing more to do."""
    await until(house.committer._idle.is_set)


async def cost(
    house: House, journal: Script, connect_id: int, command: Command, owner: bytes
) -> tuple[bytes, tuple[Any, ...]]:
    """Return a refused command's status and the work it has made."""
    await settled(house)
    before = astuple(work_of(house, journal))
    status = await refusal(house, connect_id, command, owner)
    await settled(house)
    after = astuple(work_of(house, journal))
    return status, tuple(b - a for a, b in zip(before, after, strict=True))


def commands(channel: PeerEnd) -> list[Command]:
    return [Encrypt(b"x"), Decrypt(channel.seal(b"x")), Restore(), Close()]


@pytest.mark.parametrize("live", [True, False])
async def test_anothers_channel_answers_and_costs_what_an_unknown_id_does(
    house: House,
    journal: Script,
    live: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    channel = await house.establish(1, ALICE)
    if not live:
        passivate(house, channel)
        await until(lambda: house.router.live == 0)
    for command in commands(channel):
        unknown = await cost(house, journal, UNKNOWN, command, BOB)
        assert await cost(house, journal, channel.connect_id, command, BOB) == unknown
        assert unknown[1] == (1, 0, 0, 0, 1, 0, 0, 0)
    assert channel.open(await channel.encrypt(b"unharmed")) == b"unharmed"


async def test_whoever_asks_at_once_and_often_learns_no_more(house: House, journal: Script) -> None:
    channel = await house.establish(1, ALICE)
    asked = []
    for connect_id in (UNKNOWN, channel.connect_id):
        await settled(house)
        before = len(journal.looked_up)
        replies = [house.ask(connect_id, Encrypt(b"x"), BOB) for _ in range(5_000)]
        statuses = []
        for reply in replies:
            with pytest.raises(ConnectError) as caught:
                await answer(reply)
            statuses.append(status_bytes(caught.value))
        asked.append((statuses, len(journal.looked_up) - before))
    assert asked[0] == asked[1]


async def test_what_befalls_a_channel_shows_to_its_owner_alone(
    house: House, journal: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await house.establish(1, ALICE)
    unknown = await refusal(house, UNKNOWN, Restore(), BOB)

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    # Crashed, and in its back-off.
    monkeypatch.setattr(Differential, "record", defect)
    with pytest.raises(ActorCrashedError):
        await channel.encrypt(b"x")
    assert await refusal(house, channel.connect_id, Restore(), BOB) == unknown
    with pytest.raises(ActorCrashedError, match="restarts in"):
        await channel.encrypt(b"x")
    monkeypatch.undo()

    # Damaged.
    def damaged(_: int) -> None:
        raise CorruptRecordError("on purpose")

    journal.on_recover = damaged
    assert await refusal(house, channel.connect_id, Restore(), BOB) == unknown


async def test_a_passivating_channel_keeps_no_stranger_waiting(
    house: House, journal: Script
) -> None:
    channel = await house.establish(1, ALICE)
    unknown = await refusal(house, UNKNOWN, Restore(), BOB)
    journal.gate.clear()
    passivate(house, channel)
    stranger = house.ask(channel.connect_id, Restore(), BOB)
    owner = house.ask(channel.connect_id, Encrypt(b"x"), ALICE)
    journal.gate.set()
    with pytest.raises(ChannelNotFoundError) as caught:
        await answer(stranger)
    assert status_bytes(caught.value) == unknown
    assert channel.open(await answer(owner)) == b"x"


@pytest.mark.parametrize("live", [True, False])
async def test_repeating_anothers_establish_gets_nothing_of_its_answer(
    house: House,
    journal: Script,
    live: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    _, request = establish_request(1)
    channel = await house.establish(1, ALICE)
    written = len(journal.all_records)
    if not live:
        passivate(house, channel)
        await until(lambda: house.router.live == 0)
    started = house.statistics.started
    with pytest.raises(ChannelExistsError, match="establish with fresh keys"):
        await answer(house.ask(connect_id_of(request), Establish(request), BOB))
    assert (len(journal.all_records), house.statistics.started) == (written, started)
    # Its owner gets the answer again.
    assert await answer(house.ask(connect_id_of(request), Establish(request), ALICE))


async def test_an_establish_under_way_is_its_callers_alone(house: House, journal: Script) -> None:
    _, request = establish_request(1)
    connect_id = connect_id_of(request)
    journal.gate.clear()
    first = house.ask(connect_id, Establish(request), ALICE)
    await until(journal.entered.is_set)
    stranger = house.ask(connect_id, Establish(request), BOB)
    other = house.ask(connect_id, Encrypt(b"x"), BOB)
    journal.gate.set()
    assert await answer(first)
    with pytest.raises(ChannelExistsError):
        await answer(stranger)
    with pytest.raises(ChannelNotFoundError):
        await answer(other)
    assert await house.owner(connect_id) == ALICE


async def test_two_principals_with_the_same_request_make_one_channel_of_one_of_them(
    house: House, journal: Script
) -> None:
    _, request = establish_request(1)
    connect_id = connect_id_of(request)
    replies = {o: house.ask(connect_id, Establish(request), o) for o in (ALICE, BOB)}
    await answer(replies[ALICE])
    with pytest.raises(ChannelExistsError):
        await answer(replies[BOB])
    assert await house.owner(connect_id) == ALICE
    assert len(journal.all_records) == 1


@pytest.mark.parametrize(("owner", "other"), [(b"", ALICE), (ALICE, b"")], ids=["on", "off"])
async def test_turning_authentication_on_or_off_gives_nobody_anothers_channel(
    house: House, owner: bytes, other: bytes
) -> None:
    _, request = establish_request(1)
    channel = await house.establish(1, owner)
    for live in (True, False):
        for command in commands(channel):
            with pytest.raises(ChannelNotFoundError):
                await answer(house.ask(channel.connect_id, command, other))
        with pytest.raises(ChannelExistsError):
            await answer(house.ask(channel.connect_id, Establish(request), other))
        if live:
            passivate(house, channel)
        await until(lambda: house.router.live == 0)
    assert channel.open(await channel.encrypt(b"unharmed")) == b"unharmed"


async def test_only_its_owner_closes_a_channel_and_then_its_id_is_free(
    house: House, journal: Script
) -> None:
    channel = await house.establish(1, ALICE)
    with pytest.raises(ChannelNotFoundError):
        await answer(house.ask(channel.connect_id, Close(), BOB))
    assert journal.owned(ALICE) == 1
    await answer(channel.ask(Close()))
    await until(lambda: house.router.live == 0)
    assert (await house.owner(channel.connect_id), journal.owned(ALICE)) == (b"", 0)
    again = await house.establish(1, BOB)
    assert again.connect_id == channel.connect_id
    assert await house.owner(again.connect_id) == BOB


async def test_commands_ahead_of_an_establish_keep_their_order(house: House) -> None:
    _, request = establish_request(1)
    connect_id = connect_id_of(request)
    early = house.ask(connect_id, Encrypt(b"x"), ALICE)
    made = house.ask(connect_id, Establish(request), ALICE)
    late = house.ask(connect_id, Encrypt(b"x"), ALICE)
    with pytest.raises(ChannelNotFoundError):
        await answer(early)
    assert await answer(made)
    assert await answer(late)


# --- How many -------------------------------------------------------------------------------------


async def test_a_principal_has_no_more_channels_than_its_quota(journal: Script) -> None:
    house = House(journal, max_channels=2)
    first = await house.establish(1, ALICE)
    await house.establish(2, ALICE)
    commits = len(journal.batches)
    with pytest.raises(QuotaExceededError, match="2: close some"):
        await house.establish(3, ALICE)
    assert len(journal.batches) == commits
    await house.establish(3, BOB)  # another's quota is another's
    await house.establish(1, ALICE)  # nor does it keep anyone from what they have
    await answer(first.ask(Close()))
    await house.establish(4, ALICE)
    await house.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_quota_holds_for_what_comes_at_once_and_after_a_restart(
    tmp_path: Path, kind: str
) -> None:
    journal = scripted_journal(kind, tmp_path)
    house = House(journal, max_channels=3)
    requests = [establish_request(seed)[1] for seed in range(10)]
    replies = [house.ask(connect_id_of(r), Establish(r), ALICE) for r in requests]
    refused = 0
    for reply in replies:
        try:
            await answer(reply)
        except QuotaExceededError:
            refused += 1
    assert (journal.owned(ALICE), refused) == (3, 7)
    await house.close()
    after = House(reopened(journal, tmp_path), max_channels=3)
    with pytest.raises(QuotaExceededError):
        await after.establish(99, ALICE)
    await after.close()


async def test_an_establish_that_fails_gives_its_place_back(journal: Script) -> None:
    house = House(journal, max_channels=1)
    _, request = establish_request(1)
    request.bundle.signature = bytes(64)
    for _ in range(3):
        with pytest.raises(ConnectError, match="signature"):
            await answer(house.ask(connect_id_of(request), Establish(request), ALICE))
        await until(lambda: house.router.live == 0)
    await house.establish(2, ALICE)
    await house.close()


async def test_an_establish_that_finds_no_room_gives_its_place_back_too(
    journal: Script,
) -> None:
    house = House(journal, max_channels=1, max_live_actors=1)
    busy = await house.establish(1, BOB)
    live = house.router._channels[busy.connect_id]
    assert isinstance(live, _Live)
    journal.gate.clear()
    held = []
    for seed in range(2, 5):
        # The only actor has its hands full at each of these moments.
        _, request = establish_request(seed)
        key = connect_id_of(request), ALICE
        reply: AwaitedReply = AwaitedReply()
        house.router._asked[key] = deque([(Establish(request), reply)])
        busy.occupy()
        held.append(busy.ask(Encrypt(b"x")))
        house.router._found(key, Standing.UNKNOWN, None)
        with pytest.raises(OverloadedError):
            await answer(reply)
        await until(live.mailbox.empty)
    journal.gate.set()
    for encrypted in held:
        await answer(encrypted)
    await house.establish(9, ALICE)
    await house.close()


async def test_an_owners_commands_for_a_live_channel_ask_the_journal_nothing(
    house: House, journal: Script
) -> None:
    channel = await house.establish(1, ALICE)
    before = len(journal.looked_up)
    for _ in range(10):
        await channel.encrypt(b"x")
    assert len(journal.looked_up) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_where_nobody_is_authenticated_all_channels_together_have_a_bound(
    tmp_path: Path, kind: str
) -> None:
    journal = scripted_journal(kind, tmp_path)
    house = House(journal, max_channels=3)
    requests = [establish_request(seed)[1] for seed in range(10)]
    replies = [house.ask(connect_id_of(r), Establish(r)) for r in requests]
    outcomes = await asyncio.gather(*map(answer, replies), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [bytes] * 3 + [QuotaExceededError] * 7
    assert journal.owned(b"") == 3
    with pytest.raises(QuotaExceededError, match=r"close some, or .* raise max_channels"):
        await house.establish(99)
    # What is there goes on, also by the same request once more, and loaded anew.
    await house.close()
    house = House(reopened(journal, tmp_path), max_channels=3)
    made = house.ask(connect_id_of(requests[0]), Establish(requests[0]))
    assert await answer(made) == outcomes[0]
    with pytest.raises(QuotaExceededError):
        await house.establish(99)
    await answer(house.ask(connect_id_of(requests[1]), Close()))
    await house.establish(99)
    with pytest.raises(QuotaExceededError):
        await house.establish(98)
    await house.close()


async def test_a_handshake_that_fails_leaves_its_place_to_others(journal: Script) -> None:
    house = House(journal, max_channels=1)
    _, bad = establish_request(1)
    bad.bundle.signature = bytes(64)
    for _ in range(3):
        with pytest.raises(HandshakeRefusedError):
            await answer(house.ask(connect_id_of(bad), Establish(bad)))
    await house.establish(2)
    await house.close()


# --- In the file ----------------------------------------------------------------------------------


def opened(path: Path) -> SqliteJournal:
    return SqliteJournal(path, keys=KeyRing.of(bytes(32)), strategy="full")


def first(channel: int) -> Record:
    return Record(channel, 1, RecordKind.STATE, b"state")


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_an_owner_comes_with_the_first_record_and_goes_with_the_last(
    tmp_path: Path, kind: str
) -> None:
    journal = MemoryJournal() if kind == "memory" else opened(tmp_path / "journal.db")
    states = [Snapshot(channel, 1, 1, b"state") for channel in (1, 2, 3)]
    journal.commit(Batch([first(1), first(2), first(3)], states, [(1, ALICE), (2, BOB)]))
    assert journal.owned(b"") == 1
    assert [journal.owner(n) for n in (1, 2, 3, 4)] == [ALICE, BOB, b"", b""]
    assert [journal.recover(n).owner for n in (1, 2, 3, 4)] == [ALICE, BOB, b"", b""]
    assert (journal.owned(ALICE), journal.owned(BOB), journal.owned(b"x")) == (1, 1, 0)
    if isinstance(journal, SqliteJournal):
        journal.close()
        journal = opened(tmp_path / "journal.db")
        assert (journal.owner(1), journal.owned(BOB), journal.owned(b"")) == (ALICE, 1, 1)
    # A refused record brings no owner; an end takes it, also one that another life follows.
    rejected = journal.commit(Batch([first(2)], (), [(2, ALICE)]))
    assert [rejection.entry for rejection in rejected] == [first(2)]
    journal.commit(Batch([Record(1, 2, RecordKind.CLOSED, b""), first(1)], (), [(1, BOB)]))
    assert journal.owned(b"") == 1
    journal.commit(Batch([first(5), Record(5, 2, RecordKind.CLOSED, b"")], (), [(5, BOB)]))
    assert [journal.owner(n) for n in (1, 2, 5)] == [BOB, BOB, b""]
    assert (journal.owned(ALICE), journal.owned(BOB), journal.owned(b"")) == (0, 2, 1)
    journal.commit(Batch([Record(3, 2, RecordKind.CLOSED, b"")], ()))
    assert journal.owned(b"") == 0
    journal.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE owners SET owner = (SELECT owner FROM owners WHERE channel = 2) WHERE channel = 1",
        "REPLACE INTO owners SELECT 1, life, owner, seal FROM owners WHERE channel = 2",
        "DELETE FROM owners WHERE channel = 1",
        "UPDATE owners SET seal = zeroblob(44) WHERE channel = 1",
        "UPDATE owners SET seal = 'text' WHERE channel = 1",
    ],
)
def test_an_owner_that_was_changed_or_moved_is_not_believed(tmp_path: Path, change: str) -> None:
    journal = opened(tmp_path / "journal.db")
    journal.commit(Batch([first(1), first(2)], (), [(1, ALICE), (2, BOB)]))
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute(change)
    connection.close()
    journal = opened(tmp_path / "journal.db")
    for read in (journal.owner, journal.recover):
        with pytest.raises(CorruptRecordError, match="channel 1: its owner"):
            read(1)
    assert journal.owner(2) == BOB
    journal.close()
