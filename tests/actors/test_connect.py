"""The connect actor, its router and the group commit together, on scripted journals."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connect_actor.actors.commands import Close, Decrypt, Encrypt, Establish, Restore
from connect_actor.actors.phases.running import EXPIRED_IS_KEPT
from connect_actor.errors import (
    ActorCrashedError,
    AuthenticationFailedError,
    ChannelDamagedError,
    ChannelExistsError,
    ChannelExpiredError,
    ChannelNotFoundError,
    DeadlineExceededError,
    HandshakeRefusedError,
    MessageReplayedError,
    OverloadedError,
    ReadFailedError,
    ShuttingDownError,
    WriteRejectedError,
    WriteUncertainError,
)
from connect_actor.persistence.committer import CallbackWrite
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.strategies import Differential
from connect_actor.protocol.handshake import connect_id_of
from connect_actor.reply import AwaitedReply
from connect_actor.v1 import connect_pb2 as wire
from tests.support.channels import NOW, establish_request
from tests.support.house import House, answer, until
from tests.support.journals import ScriptedJournal
from tests.support.process import PATIENCE


@pytest.fixture
def journal() -> ScriptedJournal:
    return ScriptedJournal()


@pytest.fixture
async def house(journal: ScriptedJournal) -> AsyncIterator[House]:
    house = House(journal)
    yield house
    journal.gate.set()
    await house.close()


async def hold_commits(journal: ScriptedJournal) -> None:
    journal.entered.clear()
    journal.gate.clear()


# --- Commit before reply ------------------------------------------------------------------------


async def test_nothing_is_answered_before_its_commit(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    await hold_commits(journal)
    reply = channel.ask(Encrypt(b"secret"))
    await until(journal.entered.is_set)
    done: list[object] = []
    reply.add_done_callback(done.append)
    await asyncio.sleep(0.02)
    assert not done
    journal.gate.set()
    assert channel.open(await answer(reply)) == b"secret"


async def test_a_restore_shows_only_what_is_durable(house: House, journal: ScriptedJournal) -> None:
    channel = await house.establish()
    await hold_commits(journal)
    channel.ask(Encrypt(b"on its way"))
    await until(journal.entered.is_set)
    reply = channel.ask(Restore())
    done: list[object] = []
    reply.add_done_callback(done.append)
    await asyncio.sleep(0.02)
    assert not done
    journal.gate.set()
    assert (await answer(reply)).sending_chain_length == 1


async def test_many_channels_share_a_commit(house: House, journal: ScriptedJournal) -> None:
    channels = [await house.establish(seed) for seed in range(10)]
    await hold_commits(journal)
    first = channels[0].ask(Encrypt(b"first"))
    await until(journal.entered.is_set)
    commits = len(journal.batches)
    others = [channel.ask(Encrypt(b"x")) for channel in channels for _ in range(5)]
    await asyncio.sleep(0.02)
    journal.gate.set()
    await asyncio.gather(*(answer(reply) for reply in [first, *others]))
    assert len(journal.batches) == commits + 2
    assert len(journal.batches[-1].records) == 50


async def test_answers_of_a_channel_come_in_the_order_of_its_commands(house: House) -> None:
    channel = await house.establish()
    replies = [channel.ask(Encrypt(bytes([number]))) for number in range(50)]
    payloads = [await answer(reply) for reply in replies]
    assert [channel.open(payload) for payload in payloads] == [bytes([n]) for n in range(50)]


# --- Failed commits ------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written all the same"])
async def test_after_a_failed_commit_the_channel_goes_on_from_what_is_durable(
    house: House,
    journal: ScriptedJournal,
    written: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    channel = await house.establish()
    assert channel.open(await channel.encrypt(b"before")) == b"before"
    (journal.fail_after if written else journal.fail_before).append(True)
    with pytest.raises(WriteUncertainError):
        await channel.encrypt(b"lost")
    payload = await channel.encrypt(b"after")
    assert payload.header.message_number == (2 if written else 1)
    assert channel.open(payload) == b"after"
    assert await channel.decrypt(channel.seal(b"back")) == b"back"
    assert house.statistics.discarded == 1


async def test_what_was_queued_behind_a_failed_commit_fails_with_it(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    await hold_commits(journal)
    journal.fail_before.append(True)
    first = channel.ask(Encrypt(b"1"))
    await until(journal.entered.is_set)
    second = channel.ask(Encrypt(b"2"))
    await asyncio.sleep(0.01)
    journal.gate.set()
    for reply in (first, second):
        with pytest.raises(WriteUncertainError):
            await answer(reply)
    payload = await channel.encrypt(b"3")
    assert payload.header.message_number == 0
    assert channel.open(payload) == b"3"


async def test_a_record_that_another_writer_was_ahead_of_is_refused_and_the_channel_reloaded(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    await channel.encrypt(b"1")
    intruder = journal.all_records[-1]
    journal.commit(
        Batch(
            [Record(channel.connect_id, 3, RecordKind.CHANGE, intruder.payload[:2] + b"\x10\x01")]
        )
    )
    with pytest.raises(WriteRejectedError):
        await channel.encrypt(b"2")
    payload = await channel.encrypt(b"3")
    assert payload.header.message_number == 2


async def test_what_is_queued_behind_a_rejected_record_is_refused_though_its_number_would_fit(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    await channel.encrypt(b"1")
    written = journal.all_records[-1]
    await hold_commits(journal)
    first = channel.ask(Encrypt(b"2"))
    await until(journal.entered.is_set)
    second = channel.ask(Encrypt(b"3"))
    await asyncio.sleep(0.01)
    intruder = Record(channel.connect_id, 3, RecordKind.CHANGE, written.payload[:2] + b"\x10\x01")
    MemoryJournal.commit(journal, Batch([intruder]))
    journal.gate.set()
    for reply in (first, second):
        with pytest.raises(WriteRejectedError):
            await answer(reply)
    assert journal.recover(channel.connect_id).records[-1] == intruder
    assert (await channel.encrypt(b"4")).header.message_number == 2


async def test_a_snapshot_of_what_is_not_durable_replaces_nothing(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    await channel.encrypt(b"1")
    before = list(journal.recover(channel.connect_id).records)
    settled: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    ahead = Snapshot(channel.connect_id, 3, NOW, b"of a session ahead of the journal")
    house.committer.write(CallbackWrite(channel.connect_id, settled.set_result, snapshot=ahead))
    assert isinstance(await asyncio.wait_for(settled, PATIENCE), WriteRejectedError)
    assert list(journal.recover(channel.connect_id).records) == before


async def test_a_listener_that_fails_keeps_nobody_else_waiting(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await house.establish()

    def fail(_: object) -> None:
        raise RuntimeError("on purpose")

    house.committer.write(CallbackWrite(channel.connect_id, fail))
    assert channel.open(await channel.encrypt(b"x")) == b"x"
    assert "failed at its settling" in caplog.text


async def test_no_message_meets_a_session_whose_commit_has_failed(
    house: House, journal: ScriptedJournal
) -> None:
    initiation, request = establish_request(1)
    connect_id = connect_id_of(request)
    journal.fail_before.append(True)
    again: list[AwaitedReply] = []
    first = house.ask(connect_id, Establish(request))
    # Comes while the failure is being told, before anything else can run.
    first.add_done_callback(lambda _: again.append(house.ask(connect_id, Establish(request))))
    with pytest.raises(WriteUncertainError):
        await answer(first)
    response = await answer(again[0])
    session = rebuild(journal.recover(connect_id))
    assert session is not None
    assert session.handshake.response == response
    initiation.complete(wire.EstablishResponse.FromString(response))


async def test_a_refusal_waits_for_what_it_rests_on(house: House, journal: ScriptedJournal) -> None:
    channel = await house.establish()
    payload = channel.seal(b"once")
    await hold_commits(journal)
    first, replay = channel.ask(Decrypt(payload)), channel.ask(Decrypt(payload))
    order: list[object] = []
    for reply in (first, replay):
        reply.add_done_callback(order.append)
    await until(journal.entered.is_set)
    await asyncio.sleep(0.01)
    assert order == []
    journal.gate.set()
    assert await answer(first) == b"once"
    with pytest.raises(MessageReplayedError):
        await answer(replay)
    assert order == [first, replay]


async def test_a_replay_of_what_was_lost_is_not_called_one(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"once")
    await hold_commits(journal)
    journal.fail_before.append(True)
    replies = [channel.ask(Decrypt(payload)), channel.ask(Decrypt(payload))]
    await until(journal.entered.is_set)
    journal.gate.set()
    for reply in replies:
        with pytest.raises(WriteUncertainError):
            await answer(reply)
    assert await channel.decrypt(payload) == b"once"


async def test_no_key_and_nonce_come_twice_however_commits_fail(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    seen: set[tuple[bytes, int]] = set()
    for round_number in range(40):
        if round_number % 3 == 0:
            journal.fail_before.append(True)
        if round_number % 5 == 0:
            journal.fail_after.append(True)
        try:
            payload = await channel.encrypt(b"x")
        except WriteUncertainError:
            continue
        assert channel.open(payload) == b"x"
        key = (payload.header.ratchet_key, payload.header.message_number)
        assert key not in seen
        seen.add(key)
    assert len(seen) > 10


async def test_a_journal_that_hangs_leaves_nobody_waiting(journal: ScriptedJournal) -> None:
    house = House(journal, journal_timeout=1.0)
    channel = await house.establish()
    await hold_commits(journal)
    with pytest.raises(WriteUncertainError):
        await channel.encrypt(b"x")
    with pytest.raises(ReadFailedError):
        await channel.encrypt(b"while it hangs")
    rounds = house.committer.statistics.rounds
    journal.gate.set()
    await until(lambda: house.committer.statistics.rounds > rounds)
    assert channel.open(await channel.encrypt(b"y")) == b"y"
    await house.close()


# --- Refusals change nothing ----------------------------------------------------------------------


async def test_a_refused_message_writes_nothing_and_changes_nothing(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"once")
    assert await channel.decrypt(payload) == b"once"
    written = len(journal.all_records)
    forged = payload._replace(ciphertext=bytes(len(payload.ciphertext)))
    ahead = forged._replace(header=payload.header._replace(message_number=500))
    with pytest.raises(MessageReplayedError):
        await channel.decrypt(payload)
    for bad in (ahead, forged._replace(header=payload.header._replace(ratchet_key=b"\x09" * 32))):
        with pytest.raises(AuthenticationFailedError):
            await channel.decrypt(bad)
    assert len(journal.all_records) == written
    assert await channel.decrypt(channel.seal(b"twice")) == b"twice"


async def test_a_command_for_an_unknown_channel_starts_no_actor(house: House) -> None:
    payload = (await house.establish()).seal(b"x")
    started = house.statistics.started
    for command in (Decrypt(payload), Encrypt(b"x"), Restore(), Close()):
        with pytest.raises(ChannelNotFoundError):
            await answer(house.ask(12345, command))
    assert house.statistics.started == started
    assert house.router.live == 1


async def test_a_command_whose_deadline_has_passed_is_not_begun(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    written = len(journal.all_records)
    past = asyncio.get_running_loop().time() - 1
    for command in (Encrypt(b"x", 0, past), Restore(past), Close(past)):
        with pytest.raises(DeadlineExceededError):
            await answer(channel.ask(command))
    assert len(journal.all_records) == written


async def test_an_expired_channel_is_refused(house: House) -> None:
    channel = await house.establish()
    house.now = NOW + 86_400_000_000
    for command in (Encrypt(b"x"), Restore()):
        with pytest.raises(ChannelExpiredError):
            await answer(channel.ask(command))


HOUR = 3_600_000_000


@pytest.mark.parametrize(("late_by", "kept"), [(HOUR - 1, True), (HOUR, False)])
async def test_an_expired_channel_leaves_the_journal_an_hour_later_when_it_is_passivated(
    journal: ScriptedJournal,
    late_by: int,
    kept: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    house = House(journal)
    expired = await house.establish()
    await expired.encrypt(b"x")
    await house.close()
    late = House(journal)
    late.now = expired.session.expires_at + late_by
    with pytest.raises(ChannelExpiredError):
        await answer(late.ask(expired.connect_id, Restore()))
    await late.close()
    assert (journal.highest_sequence_number(expired.connect_id) > 0) is kept
    assert late.statistics.expired == (0 if kept else 1)
    assert late.statistics.closed == 0


async def test_an_expired_channel_whose_end_is_not_durable_is_ended_another_time(
    journal: ScriptedJournal,
) -> None:
    house = House(journal)
    expired = await house.establish()
    await house.close()
    for fails, left in ((True, True), (False, False)):
        late = House(journal)
        late.now = expired.session.expires_at + EXPIRED_IS_KEPT
        with pytest.raises(ChannelExpiredError):
            await answer(late.ask(expired.connect_id, Restore()))
        journal.fail_before = [fails]
        await late.close()
        assert (journal.highest_sequence_number(expired.connect_id) > 0) is left
        assert late.statistics.expired == (0 if fails else 1)


async def test_too_many_waiting_writes_are_refused_and_change_nothing(
    journal: ScriptedJournal,
) -> None:
    house = House(journal, max_waiting=3)
    channel = await house.establish()
    await hold_commits(journal)
    replies = [channel.ask(Encrypt(b"0"))]
    await until(journal.entered.is_set)
    replies += [channel.ask(Encrypt(bytes([number]))) for number in range(1, 4)]
    await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError):
        await channel.encrypt(b"one too many")
    journal.gate.set()
    numbers = [(await answer(reply)).header.message_number for reply in replies]
    assert numbers == [0, 1, 2, 3]
    assert (await channel.encrypt(b"next")).header.message_number == 4
    await house.close()


# --- Establish and Close --------------------------------------------------------------------------


async def test_a_repeated_establish_gets_the_same_answer(
    house: House, journal: ScriptedJournal
) -> None:
    _, request = establish_request(9)
    first = await answer(house.ask(connect_id_of(request), Establish(request)))
    written = len(journal.all_records)
    assert await answer(house.ask(connect_id_of(request), Establish(request))) == first
    assert len(journal.all_records) == written


async def test_a_field_that_is_not_signed_makes_no_other_request(
    house: House, journal: ScriptedJournal
) -> None:
    _, request = establish_request(9)
    padded = wire.EstablishRequest.FromString(request.SerializeToString() + b"\xfa\x07\x05stray")
    first = await answer(house.ask(connect_id_of(padded), Establish(padded)))
    assert await answer(house.ask(connect_id_of(request), Establish(request))) == first
    assert b"stray" not in journal.all_records[0].payload


async def test_another_request_for_the_same_channel_is_refused(house: House) -> None:
    _, request = establish_request(9)
    connect_id = connect_id_of(request)
    await answer(house.ask(connect_id, Establish(request)))
    other = wire.EstablishRequest.FromString(request.SerializeToString())
    other.bundle.signature = bytes(64)
    with pytest.raises(ChannelExistsError):
        await answer(house.ask(connect_id, Establish(other)))


async def test_a_refused_handshake_leaves_no_actor_and_no_record(
    house: House, journal: ScriptedJournal
) -> None:
    _, request = establish_request(9)
    request.bundle.signature = bytes(64)
    with pytest.raises(HandshakeRefusedError):
        await answer(house.ask(connect_id_of(request), Establish(request)))
    await until(lambda: house.router.live == 0)
    assert not journal.all_records


async def test_a_closed_channel_is_gone_for_good(house: House, journal: ScriptedJournal) -> None:
    channel = await house.establish()
    await channel.encrypt(b"x")
    assert await answer(channel.ask(Close())) is None
    with pytest.raises(ChannelNotFoundError):
        await channel.encrypt(b"y")
    await until(lambda: house.router.live == 0)
    assert journal.highest_sequence_number(channel.connect_id) == 0
    after_restart = House(journal)
    with pytest.raises(ChannelNotFoundError):
        await answer(after_restart.ask(channel.connect_id, Restore()))


async def test_a_close_whose_commit_fails_has_not_closed_the_channel(
    house: House, journal: ScriptedJournal
) -> None:
    channel = await house.establish()
    journal.fail_before.append(True)
    with pytest.raises(WriteUncertainError):
        await answer(channel.ask(Close()))
    assert channel.open(await channel.encrypt(b"still here")) == b"still here"


# --- Passivation, recovery, snapshots ----------


async def test_snapshots_come_at_the_interval_and_replace_the_records(
    journal: ScriptedJournal,
) -> None:
    house = House(journal, snapshot_interval=10)
    channel = await house.establish()
    for _ in range(24):
        await channel.encrypt(b"x")
    # The first one comes early, and each channel's at another time.
    first = 1 + 10 - channel.connect_id % 10
    expected = [1, *range(first, 26, 10)]
    assert [s.sequence_number for s in journal.all_snapshots] == expected
    left = list(journal.recover(channel.connect_id).records)
    assert [record.sequence_number for record in left] == [*range(expected[-1] + 1, 26)]
    await house.close()


async def test_an_idle_actor_saves_a_snapshot_and_goes_and_comes_back_when_needed(
    journal: ScriptedJournal,
) -> None:
    house = House(journal, idle_timeout=0.05)
    channel = await house.establish()
    await channel.encrypt(b"1")
    await until(lambda: house.router.live == 0)
    assert [s.sequence_number for s in journal.all_snapshots] == [1, 2]
    assert not journal.recover(channel.connect_id).records
    payload = await channel.encrypt(b"2")
    assert payload.header.message_number == 1
    assert house.statistics.recovered == 1
    await house.close()


async def test_commands_that_meet_a_passivating_actor_are_all_answered_in_order(
    journal: ScriptedJournal,
) -> None:
    house = House(journal, idle_timeout=0.05)
    channel = await house.establish()
    await channel.encrypt(b"there is something to save")
    await hold_commits(journal)
    await until(journal.entered.is_set)  # the final snapshot is on its way
    replies = [channel.ask(Encrypt(bytes([number]))) for number in range(20)]
    await asyncio.sleep(0.01)
    journal.gate.set()
    payloads = [await answer(reply) for reply in replies]
    assert [channel.open(payload) for payload in payloads] == [bytes([n]) for n in range(20)]
    assert house.statistics.started == 2
    await house.close()


async def test_an_actor_in_use_is_not_passivated(journal: ScriptedJournal) -> None:
    house = House(journal, idle_timeout=0.2)
    channel = await house.establish()
    for _ in range(20):
        await channel.encrypt(b"x")
        await asyncio.sleep(0.02)
    assert house.statistics.passivated == 0
    await house.close()


async def test_commands_wait_in_order_while_the_channel_is_loaded(
    journal: ScriptedJournal,
) -> None:
    house = House(journal)
    channel = await house.establish()
    await house.close()
    house = House(journal)
    replies = [house.ask(channel.connect_id, Encrypt(bytes([n]))) for n in range(20)]
    payloads = [await answer(reply) for reply in replies]
    assert [channel.open(payload) for payload in payloads] == [bytes([n]) for n in range(20)]
    assert house.statistics.recovered == 1
    await house.close()


async def test_a_damaged_channel_is_refused_and_the_others_are_served(
    house: House, journal: ScriptedJournal
) -> None:
    damaged, sound = await house.establish(1), await house.establish(2)
    await house.router.drain()

    def fail(channel: int) -> None:
        if channel == damaged.connect_id:
            raise CorruptRecordError("on purpose")

    journal.on_recover = fail
    restarted = House(journal)
    for _ in range(2):
        with pytest.raises(ChannelDamagedError):
            await answer(restarted.ask(damaged.connect_id, Encrypt(b"x")))
    payload = await answer(restarted.ask(sound.connect_id, Encrypt(b"x")))
    assert sound.open(payload) == b"x"
    assert restarted.statistics.recovery_failures == 2


async def test_recoveries_beyond_the_permits_queue_up_and_all_succeed(
    journal: ScriptedJournal,
) -> None:
    house = House(journal)
    channels = [await house.establish(seed) for seed in range(12)]
    await house.close()
    house = House(journal, permits=2)
    replies = [house.ask(channel.connect_id, Restore()) for channel in channels]
    await asyncio.gather(*(answer(reply) for reply in replies))
    assert house.statistics.recovered == 12
    assert house.environment.permits.waiting == 0
    await house.close()


async def test_what_a_closing_round_made_durable_is_answered_so_with_a_snapshot_due_in_it(
    journal: ScriptedJournal,
) -> None:
    house = House(journal, snapshot_interval=2)
    channel, other = await house.establish(1), await house.establish(2)
    await hold_commits(journal)
    holding = other.ask(Encrypt(b"x"))
    await until(journal.entered.is_set)
    # In the next round: a record that a snapshot goes with, and the end.
    encrypted, closed = channel.ask(Encrypt(b"x")), channel.ask(Close())
    await asyncio.sleep(0.01)
    journal.gate.set()
    await answer(holding)
    assert channel.open(await answer(encrypted)) == b"x"
    assert await answer(closed) is None
    assert [record.kind for record in journal.batches[-1].records][-1] is RecordKind.CLOSED
    assert house.committer.statistics.rejected_records == 0
    await house.close()


# --- Defects ------------------------------------------------------------------------------------


async def test_a_crashed_actor_throws_its_state_away_and_restarts_after_a_pause(
    house: House, journal: ScriptedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await house.establish()
    await channel.encrypt(b"1")

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Differential, "record", defect)
    with pytest.raises(ActorCrashedError):
        await channel.encrypt(b"2")
    monkeypatch.undo()
    with pytest.raises(ActorCrashedError, match="restarts in"):
        await channel.encrypt(b"too soon")
    await asyncio.sleep(0.06)
    payload = await channel.encrypt(b"3")
    assert payload.header.message_number == 1
    assert house.statistics.crashed == 1
    assert len(journal.all_records) == 3


async def test_who_comes_between_a_crash_and_the_stop_is_told_of_the_crash(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await house.establish()

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Differential, "record", defect)
    later: list[AwaitedReply] = []

    def come_back(_: object) -> None:
        # From within the turn that crashed: the order to stop is in the mailbox, and this behind.
        later.extend(channel.ask(Encrypt(b"%d" % n)) for n in range(3))

    first = channel.ask(Encrypt(b"x"))
    first.add_done_callback(come_back)
    with pytest.raises(ActorCrashedError):
        await answer(first)
    for reply in later:
        with pytest.raises(ActorCrashedError, match="try again after a pause"):
            await answer(reply)
    assert len(later) == 3
    assert house.statistics.crashed == 1
    assert house.router.live == 0


async def test_a_defect_in_passivation_leaves_a_channel_that_is_served_again_and_can_be_drained(
    journal: ScriptedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(journal, idle_timeout=0.05)
    channel = await house.establish()
    await channel.encrypt(b"there is something to save")

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Differential, "state", defect)
        await until(lambda: house.statistics.crashed == 1)
        await until(lambda: house.router.live == 0)
    await asyncio.sleep(0.06)
    assert channel.open(await channel.encrypt(b"x")) == b"x"
    await house.close()


async def test_a_defect_in_recovery_refuses_who_waits_and_gives_the_permit_back_once(
    journal: ScriptedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = House(journal)
    channel = await first.establish()
    await first.close()
    house = channel.house = House(journal, permits=2)

    def defect() -> None:
        raise ZeroDivisionError

    taken = house.environment.permits.acquire(lambda: None, lambda _: None)
    with monkeypatch.context() as patched:
        # Met behind the permit's return, with the session at hand.
        patched.setattr(Differential, "__init__", lambda _: defect())
        replies = [channel.ask(Encrypt(b"x")) for _ in range(3)]
        for reply in replies:
            with pytest.raises(ActorCrashedError):
                await answer(reply)
    await until(lambda: house.router.live == 0)
    assert house.environment.permits.in_use == 1
    taken.give_back()
    await asyncio.sleep(0.06)
    assert channel.open(await channel.encrypt(b"x")) == b"x"
    await house.close()


# --- The router's modes, and the end ----------


@pytest.mark.parametrize(("awaiting", "records_a_commit"), [(False, 8), (True, 1)])
async def test_awaiting_lets_one_operation_through_at_a_time(
    journal: ScriptedJournal,
    awaiting: bool,  # noqa: FBT001 - a test's parameter
    records_a_commit: int,
) -> None:
    house = House(journal, awaiting=awaiting)
    channels = [await house.establish(seed) for seed in range(9)]
    await hold_commits(journal)
    replies = [channels[0].ask(Encrypt(b"x"))]
    await until(journal.entered.is_set)
    replies += [channel.ask(Encrypt(b"x")) for channel in channels[1:]]
    await asyncio.sleep(0.01)
    journal.gate.set()
    await asyncio.gather(*(answer(reply) for reply in replies))
    assert max(len(batch.records) for batch in journal.batches[9:]) == records_a_commit
    await house.close()


async def test_draining_finishes_what_was_accepted_and_refuses_what_is_new(
    journal: ScriptedJournal,
) -> None:
    house = House(journal)
    channel = await house.establish()
    await hold_commits(journal)
    accepted = [channel.ask(Encrypt(b"x")) for _ in range(10)]
    draining = asyncio.ensure_future(house.router.drain())
    await asyncio.sleep(0.01)
    late = channel.ask(Encrypt(b"late"))
    journal.gate.set()
    for reply in accepted:
        await answer(reply)
    with pytest.raises(ShuttingDownError):
        await answer(late)
    await asyncio.wait_for(draining, PATIENCE)
    assert house.router.live == 0
    assert [s.sequence_number for s in journal.all_snapshots] == [1, 11]
    await house.committer.close()


async def test_draining_stops_an_actor_that_was_about_to_start(journal: ScriptedJournal) -> None:
    before = House(journal)
    channel = await before.establish()
    await before.close()
    house = House(journal)
    reply = house.ask(channel.connect_id, Encrypt(b"x"))
    draining = asyncio.ensure_future(house.router.drain())
    await asyncio.wait_for(draining, PATIENCE)
    assert channel.open(await answer(reply)) == b"x"
    assert house.router.live == 0
    await house.committer.close()
