"""Answers that were lost on their way, given again by a connect actor: only what is durable."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connect_actor.actors.commands import Acknowledge, Close, Decrypt, Encrypt
from connect_actor.errors import (
    ChannelNotFoundError,
    IdempotencyKeyReusedError,
    MalformedRequestError,
    MessageReplayedError,
    WriteUncertainError,
)
from connect_actor.persistence.contract import RecordKind
from connect_actor.persistence.recovery import rebuild
from connect_actor.protocol.changes import Acknowledged, decode_change
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.payload import Payload
from connect_actor.stored.v1 import session_pb2 as stored
from tests.support.house import House, PeerEnd, answer, until
from tests.support.journals import ScriptedJournal
from tests.support.meter import Meter

ONCE = Encrypt(b"down", request_id=7, idempotency_key=b"a key")


@pytest.fixture
def journal() -> ScriptedJournal:
    return ScriptedJournal()


@pytest.fixture
async def house(journal: ScriptedJournal) -> AsyncIterator[House]:
    house = House(journal, redelivery_window=4)
    yield house
    journal.gate.set()
    await house.close()


async def encrypt(channel: PeerEnd) -> Delivered[Payload]:
    delivered: Delivered[Payload] = await answer(channel.ask(ONCE))
    return delivered


async def decrypt(channel: PeerEnd, payload: Payload) -> Delivered[bytes]:
    delivered: Delivered[bytes] = await answer(channel.ask(Decrypt(payload)))
    return delivered


# --- Again ----------------------------------------------------------------------------------------


async def test_what_was_answered_is_answered_again_without_a_record(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    meter = Meter.of(house)
    payload = channel.seal(b"up")
    assert await decrypt(channel, payload) == Delivered(b"up", 1)
    first = await encrypt(channel)
    assert (first.number, first.redelivered) == (2, False)
    written = len(journal.all_records)
    for _ in range(3):
        assert await decrypt(channel, payload) == Delivered(b"up", 1, redelivered=True)
        assert await encrypt(channel) == Delivered(first.result, 2, redelivered=True)
    assert len(journal.all_records) == written
    assert meter.grown("connect_redeliveries_total") == 6
    assert meter.grown("connect_changes_total") == 2
    assert channel.open(first.result) == b"down"


async def test_anything_else_under_a_used_place_or_key_is_refused_and_writes_nothing(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"up")
    await decrypt(channel, payload)
    await encrypt(channel)
    written = len(journal.all_records)
    with pytest.raises(MessageReplayedError):
        await decrypt(channel, payload._replace(ciphertext=bytes(20)))
    with pytest.raises(IdempotencyKeyReusedError):
        await answer(channel.ask(ONCE._replace(plaintext=b"other")))
    assert len(journal.all_records) == written
    assert house.statistics.redelivered == 0


async def test_without_a_window_an_idempotency_key_is_refused(journal: ScriptedJournal) -> None:
    house = House(journal)
    channel = await house.establish()
    written = len(journal.all_records)
    with pytest.raises(MalformedRequestError, match="redelivery_window is 0"):
        await encrypt(channel)
    assert len(journal.all_records) == written
    await house.close()


# --- Only what is durable -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["decrypt", "encrypt"])
async def test_a_redelivery_waits_for_the_commit_of_the_original(
    house: House, journal: ScriptedJournal, kind: str
) -> None:
    channel = await house.establish()
    command = ONCE if kind == "encrypt" else Decrypt(channel.seal(b"up"))
    journal.entered.clear()
    journal.gate.clear()
    replies = [channel.ask(command), channel.ask(command)]
    order: list[object] = []
    for reply in replies:
        reply.add_done_callback(order.append)
    await until(journal.entered.is_set)
    await until(lambda: house.statistics.redelivered == 1)
    await asyncio.sleep(0)
    assert order == []
    journal.gate.set()
    first, second = [await answer(reply) for reply in replies]
    assert order == replies
    assert second == first._replace(redelivered=True)
    assert not first.redelivered


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written all the same"])
async def test_after_a_failed_commit_only_what_is_durable_is_delivered_again(
    house: House, journal: ScriptedJournal, *, written: bool
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"up")
    for command in (Decrypt(payload), ONCE):
        (journal.fail_after if written else journal.fail_before).append(True)
        journal.entered.clear()
        journal.gate.clear()
        replies = [channel.ask(command), channel.ask(command)]
        await until(journal.entered.is_set)
        journal.gate.set()
        for reply in replies:
            with pytest.raises(WriteUncertainError):
                await answer(reply)
    assert await decrypt(channel, payload) == Delivered(b"up", 1, redelivered=written)
    sent = await encrypt(channel)
    assert (sent.number, sent.redelivered) == (2, written)
    assert channel.open(sent.result) == b"down"


async def test_no_key_and_nonce_seal_two_ciphertexts_however_commits_fail(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    given: dict[bytes, Payload] = {}
    places: dict[tuple[bytes, int], bytes] = {}
    for round_number in range(40):
        if round_number % 3 == 0:
            journal.fail_before.append(True)
        if round_number % 5 == 0:
            journal.fail_after.append(True)
        key = b"%d" % (round_number // 4)
        try:
            sent = await answer(channel.ask(ONCE._replace(idempotency_key=key)))
        except WriteUncertainError:
            continue
        header = sent.result.header
        assert given.setdefault(key, sent.result) == sent.result
        assert places.setdefault((header.ratchet_key, header.message_number), key) == key
    assert len(given) == 10
    assert house.statistics.redelivered > 10


# --- What survives --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["full", "cached", "differential"])
@pytest.mark.parametrize("end", ["crash", "stop"])
async def test_a_restart_delivers_again_what_was_delivered_before_it(
    journal: ScriptedJournal, strategy: str, end: str
) -> None:
    before = House(journal, strategy=strategy, redelivery_window=4)
    channel = await before.establish()
    payloads = [channel.seal(b"%d" % number) for number in range(5)]
    for payload in payloads:
        await decrypt(channel, payload)
    sent = await encrypt(channel)
    await answer(channel.ask(Acknowledge(3)))
    if end == "stop":
        await before.close()
    # What the restarted service is told about new channels changes nothing for old ones.
    channel.house = House(journal, strategy=strategy, redelivery_window=0)
    for payload in payloads[:3]:
        with pytest.raises(MessageReplayedError):
            await decrypt(channel, payload)
    assert await decrypt(channel, payloads[3]) == Delivered(b"3", 4, redelivered=True)
    assert await decrypt(channel, payloads[4]) == Delivered(b"4", 5, redelivered=True)
    assert await encrypt(channel) == sent._replace(redelivered=True)
    assert await decrypt(channel, channel.seal(b"new")) == Delivered(b"new", 7)
    await channel.house.close()


async def test_a_channel_that_was_made_without_a_window_gets_none_later(
    journal: ScriptedJournal,
) -> None:
    before = House(journal)
    channel = await before.establish()
    payload = channel.seal(b"up")
    await channel.decrypt(payload)
    await before.close()
    channel.house = House(journal, redelivery_window=4)
    with pytest.raises(MessageReplayedError):
        await channel.decrypt(payload)
    assert await channel.decrypt(channel.seal(b"plain")) == b"plain"
    await channel.house.close()


async def test_an_idle_channel_comes_back_with_its_window(journal: ScriptedJournal) -> None:
    house = House(journal, idle_timeout=0.05, redelivery_window=4)
    channel = await house.establish()
    payload = channel.seal(b"up")
    await decrypt(channel, payload)
    await until(lambda: house.router.live == 0)
    assert await decrypt(channel, payload) == Delivered(b"up", 1, redelivered=True)
    await until(lambda: house.router.live == 0)
    # As the first command to a channel that is at rest it waits for the recovery, as any other.
    assert await answer(channel.ask(Acknowledge(1))) is None
    with pytest.raises(MessageReplayedError):
        await decrypt(channel, payload)
    await house.close()


async def test_a_closed_channel_delivers_nothing_again(house: House) -> None:
    channel = await house.establish()
    payload = channel.seal(b"up")
    await decrypt(channel, payload)
    await answer(channel.ask(Close()))
    with pytest.raises(ChannelNotFoundError):
        await decrypt(channel, payload)


async def test_the_last_snapshot_of_an_expired_channel_holds_no_delivery(
    house: House, journal: ScriptedJournal
) -> None:
    expired, alive = await house.establish(1), await house.establish(2)
    for channel in (expired, alive):
        await decrypt(channel, channel.seal(b"up"))
    house.now = expired.session.expires_at - 1
    await house.router.drain()
    assert kept(journal) == {expired.connect_id: 1, alive.connect_id: 1}
    expired.house = late = House(journal, redelivery_window=4)
    late.now = house.now
    await decrypt(expired, expired.seal(b"up"))
    late.now += 1
    await late.close()
    assert kept(journal) == {expired.connect_id: 0, alive.connect_id: 1}


def kept(journal: ScriptedJournal) -> dict[int, int]:
    """Return how many deliveries the newest snapshot of each channel holds."""
    return {
        snapshot.channel: len(stored.SessionState.FromString(snapshot.payload).deliveries.kept)
        for snapshot in journal.all_snapshots
    }


# --- Acknowledging --------------------------------------------------------------------------------


async def test_an_acknowledgement_is_durable_before_its_answer(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"up")
    await decrypt(channel, payload)
    journal.fail_before.append(True)
    with pytest.raises(WriteUncertainError):
        await answer(channel.ask(Acknowledge(1)))
    # Not written, so not acknowledged.
    assert (await decrypt(channel, payload)).redelivered
    assert await answer(channel.ask(Acknowledge(1))) is None
    record = journal.all_records[-1]
    assert record.kind is RecordKind.CHANGE
    assert decode_change(record.payload) == Acknowledged(1)
    with pytest.raises(MessageReplayedError):
        await decrypt(channel, payload)


@pytest.mark.parametrize("strategy", ["full", "cached", "differential"])
async def test_an_acknowledgement_and_the_next_snapshot_leave_no_key_in_the_journal(
    journal: ScriptedJournal, strategy: str
) -> None:
    house = House(journal, strategy=strategy, redelivery_window=4, snapshot_interval=5)
    channel = await house.establish_in_step()
    await encrypt(channel)
    for _ in range(3):
        await decrypt(channel, channel.seal(b"up"))
    before = rebuild(journal.recover(channel.connect_id))
    assert before is not None
    assert before.deliveries is not None
    keys = [delivery.message_key for delivery in before.deliveries.encode().kept]
    assert len(keys) == 4
    assert (strategy == "differential") != (keys[0] in held(journal, channel))
    await answer(channel.ask(Acknowledge(4)))
    left = held(journal, channel)
    assert left.startswith(journal.all_snapshots[-1].payload)
    assert not any(key in left for key in keys)
    await house.close()


def held(journal: ScriptedJournal, channel: PeerEnd) -> bytes:
    """Return all that the journal holds of a channel, unsealed."""
    recovery = journal.recover(channel.connect_id)
    snapshot = b"" if recovery.snapshot is None else recovery.snapshot.payload
    return snapshot + b"".join(record.payload for record in recovery.records)


async def test_an_acknowledgement_of_nothing_writes_nothing(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    for _ in range(5):
        await decrypt(channel, channel.seal(b"up"))
    await answer(channel.ask(Acknowledge(3)))
    written = len(journal.all_records)
    for up_to in (1, 3, 2):
        assert await answer(channel.ask(Acknowledge(up_to))) is None
    for up_to in (0, 6):
        with pytest.raises(MalformedRequestError, match="from 1 to 5"):
            await answer(channel.ask(Acknowledge(up_to)))
    assert len(journal.all_records) == written
