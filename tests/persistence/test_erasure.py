"""What was replaced is gone from the files, and what is left opens nothing of what came before.

The attacker of these tests has a copy of all files and the master key, has recorded every message,
and knows the format as well as the service does.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Journal,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.log_rows import (
    SEALED_STATE,
    entries_of,
    is_note,
    record_at,
    sequence_of,
    stored_number,
)
from connect_actor.persistence.sealing import (
    STATE_KEY_SIZE,
    Sealer,
    StateCipher,
    directory_context,
    snapshot_context,
    state_context,
)
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.schema import know_epochs, open_for_reading
from connect_actor.protocol import primitives
from connect_actor.protocol.changes import Change, InconsistentChangeError, Sent, decode_change
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair, WeakKeyError
from connect_actor.protocol.session import Session
from tests.persistence.journal_conformance import CHANNEL, change
from tests.support.house import House, PeerEnd

KEYS = KeyRing.of(bytes(range(32)))
STRATEGIES = ["full", "cached", "differential"]


@pytest.fixture(autouse=True)
def prompt_erasure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let upkeep erase at once what it erases within a second otherwise."""
    monkeypatch.setattr(journals, "ERASED_WITHIN", 0.0)


def open_journal(directory: Path) -> SqliteJournal:
    return SqliteJournal(directory / "journal.db", keys=KEYS, strategy="full")


def settle(journal: Journal) -> None:
    while journal.upkeep():
        pass


def all_bytes(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.iterdir()))


# --- The files ------------------------------------------------------------------------------------


def sealed_snapshots(directory: Path) -> list[bytes]:
    """Return the snapshots' blobs as they lie in the file."""
    connection = open_for_reading(directory / "journal.db")
    blobs = [blob for (blob,) in connection.execute("SELECT payload FROM snapshots")]
    connection.close()
    return blobs


@pytest.mark.parametrize("size", [40, 3_000, 60_000])
def test_a_replaced_snapshot_is_gone_from_every_file(tmp_path: Path, size: int) -> None:
    journal = open_journal(tmp_path)
    for channel in range(1, 6):
        journal.commit(
            Batch([change(1, channel)], [Snapshot(channel, 1, 1, bytes([channel]) * size)])
        )
    old = sealed_snapshots(tmp_path)
    assert len(old) == 5
    for blob in old:
        assert blob[-32:] in all_bytes(tmp_path)
    for channel in range(1, 6):
        journal.commit(Batch([change(2, channel)], [Snapshot(channel, 2, 2, b"new" * size)]))
    settle(journal)
    content = all_bytes(tmp_path)
    for blob in old:
        for begin in range(0, len(blob) - 32, 4_000):
            assert blob[begin : begin + 32] not in content
        assert blob[-32:] not in content
    for blob in sealed_snapshots(tmp_path):
        assert blob[-32:] in content
    journal.close()


def test_a_closed_channel_is_gone_from_every_file(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit(Batch([change(1)], [Snapshot(CHANNEL, 1, 1, b"s" * 3_000)]))
    (blob,) = sealed_snapshots(tmp_path)
    journal.commit(Batch([Record(CHANNEL, 2, RecordKind.CLOSED, b"")]))
    settle(journal)
    assert blob[-32:] not in all_bytes(tmp_path)
    journal.close()


def test_a_reader_delays_the_erasure_only_for_as_long_as_it_reads(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit(Batch([change(1)], [Snapshot(CHANNEL, 1, 1, b"s" * 3_000)]))
    (blob,) = sealed_snapshots(tmp_path)
    reading = open_for_reading(tmp_path / "journal.db")
    reading.execute("SELECT count(*) FROM snapshots").fetchone()
    journal.commit(Batch([Record(CHANNEL, 2, RecordKind.CLOSED, b"")]))
    settle(journal)
    assert blob[-32:] in all_bytes(tmp_path)
    reading.close()
    settle(journal)
    assert blob[-32:] not in all_bytes(tmp_path)
    journal.close()


def test_what_an_earlier_release_left_of_replaced_snapshots_goes_with_the_next_opening(
    tmp_path: Path,
) -> None:
    journal = open_journal(tmp_path)
    journal.commit(Batch([change(1)], [Snapshot(CHANNEL, 1, 1, b"s" * 3_000)]))
    (blob,) = sealed_snapshots(tmp_path)
    connection = journal._usable().connection
    (old,) = connection.execute("SELECT * FROM snapshots").fetchall()
    journal.commit(Batch([change(2)], [Snapshot(CHANNEL, 2, 2, b"t" * 3_000)]))
    # It deleted them with the next commit.
    connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", old)
    journal.close()
    assert blob[-32:] in all_bytes(tmp_path)
    journal = open_journal(tmp_path)
    settle(journal)
    assert blob[-32:] not in all_bytes(tmp_path)
    assert journal.recover(CHANNEL).snapshot == Snapshot(CHANNEL, 2, 2, b"t" * 3_000)
    journal.close()


# --- Forward secrecy at rest ----------------------------------------------------------------------


@dataclass
class Loot:
    """What an attacker finds in a copy of the journal."""

    sessions: list[bytes] = field(default_factory=list)
    changes: list[tuple[int, Change]] = field(default_factory=list)
    """With their sequence numbers."""
    closed_states: int = 0
    """Whole states that are there, but don't open."""


def ransack(directory: Path) -> Loot:
    """Open everything in the files that the master key opens, dead or alive."""
    connection = open_for_reading(directory / "journal.db")
    sealer = Sealer()
    know_epochs(connection, directory / "journal.db", KEYS, sealer)
    loot = Loot()
    state_keys: list[StateCipher] = []
    for channel, number, life, taken_at, blob in connection.execute("SELECT * FROM snapshots"):
        context = snapshot_context(channel, stored_number(life, number), taken_at)
        opened = sealer.open(blob, context)
        state_keys.append(StateCipher(opened[:STATE_KEY_SIZE]))
        loot.sessions.append(opened[STATE_KEY_SIZE:])
    for row, directory_blob, payloads_blob in connection.execute("SELECT * FROM log"):
        listed = sealer.open(directory_blob, directory_context(row))
        payloads = sealer.open_payloads(row, directory_blob, payloads_blob)
        for place, channel, stored, noted, _ in entries_of(row, listed):
            if is_note(noted):
                continue
            number = sequence_of(stored)
            kind, payload = record_at(place, payloads)
            if kind == RecordKind.STATE:
                loot.sessions.append(payload)
            elif kind == RecordKind.CHANGE:
                loot.changes.append((number, decode_change(payload)))
            elif kind == SEALED_STATE:
                opened_states = list(_open_state(state_keys, payload, channel, number))
                loot.sessions += opened_states
                loot.closed_states += not opened_states
    connection.close()
    return loot


def _open_state(
    keys: list[StateCipher], sealed: bytes, channel: int, number: int
) -> Iterator[bytes]:
    for key in keys:
        try:
            yield key.open(sealed, state_context(channel, number))
        except CorruptRecordError:
            continue


def message_keys(loot: Loot, public_keys: set[bytes]) -> set[bytes]:
    """Derive every message key that can be derived from what was found."""
    private_keys = {
        change.ratchet_private_key
        for _, change in loot.changes
        if isinstance(change, Sent) and change.ratchet_private_key
    }
    chain_keys: set[bytes] = set()
    root_keys: set[bytes] = set()
    found: set[bytes] = set()
    for encoded in loot.sessions:
        # Every later change that joins up, from this state on.
        session = Session.decode(encoded)
        _take(session, chain_keys, root_keys, private_keys, found)
        for _, later in sorted(loot.changes, key=lambda entry: entry[0]):
            try:
                session.apply(later)
            except InconsistentChangeError:
                session = Session.decode(encoded)
                continue
            _take(session, chain_keys, root_keys, private_keys, found)
    # Turns that might have been: each root key with each private and each public key.
    for root_key in root_keys:
        for private_key in private_keys:
            for public_key in public_keys:
                try:
                    secret = KeyPair(private_key).exchange(public_key)
                except WeakKeyError:
                    continue
                chain_keys.add(primitives.step_root(root_key, secret)[1])
    for start in chain_keys:
        chain_key = start
        for _ in range(15):
            message_key, chain_key = primitives.step_chain(chain_key)
            found.add(message_key)
    return found


def _take(
    session: Session,
    chain_keys: set[bytes],
    root_keys: set[bytes],
    private_keys: set[bytes],
    found: set[bytes],
) -> None:
    ratchet = session.ratchet
    root_keys.add(ratchet.root_key)
    if ratchet.own_key is not None:
        private_keys.add(ratchet.own_key.private_key)
    private_keys.update(
        pair.private_key
        for pair in (
            session.channel_keys.exchange_identity,
            session.channel_keys.signed_prekey,
            *session.channel_keys.one_time_prekeys.values(),
        )
        if pair.private_key
    )
    chain_keys.update(
        chain.chain_key for chain in (ratchet.sending, ratchet.receiving) if chain is not None
    )
    for skipped in ratchet.skipped:
        found.update(skipped.keys.values())
    if session.deliveries is not None:
        window = session.deliveries.encode()
        found.update(kept.message_key for kept in window.kept)


def opened(payloads: list[Payload], keys: set[bytes], associated_data: bytes) -> int:
    """Count the messages that one of the keys opens."""
    return sum(
        any(
            primitives.decrypt(
                key, payload.nonce, payload.ciphertext, associated_data + payload.header.encode()
            )
            for key in keys
        )
        for payload in payloads
    )


async def talk(end: PeerEnd, messages: int) -> list[Payload]:
    """Exchange messages both ways, as many in all; return what went over the wire."""
    recorded = []
    for number in range(messages // 2):
        up = end.seal(b"up %d" % number)
        assert await end.decrypt(up) == b"up %d" % number
        down = await end.encrypt(b"down %d" % number)
        assert end.open(down) == b"down %d" % number
        recorded += [up, down]
    return recorded


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("one_time_prekeys", [0, 2])
@pytest.mark.parametrize("window", [0, 3])
async def test_after_the_next_snapshot_the_disk_and_its_key_open_nothing_from_before(
    tmp_path: Path, strategy: str, one_time_prekeys: int, window: int
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    journal = open_journal(directory)
    house = House(
        journal,
        strategy=strategy,
        snapshot_interval=20,
        one_time_prekeys=one_time_prekeys,
        redelivery_window=window,
    )
    end = await house.establish_in_step()
    recorded = await talk(end, 18)
    shutil.copytree(directory, tmp_path / "before")
    # On to the next snapshot; what a delivery window holds on purpose goes with the one after it.
    await talk(end, 22 if window else 2)
    await house.committer.perform(settle)
    shutil.copytree(directory, tmp_path / "after")
    associated_data = end.session.ratchet.associated_data
    public_keys = {payload.header.ratchet_key for payload in recorded}

    before = ransack(tmp_path / "before")
    keys = message_keys(before, public_keys)
    # The attack works while the snapshot is still to come, or else it would prove nothing.
    assert opened(recorded, keys, associated_data) >= len(recorded) // 2

    after = ransack(tmp_path / "after")
    assert after.sessions
    keys = message_keys(after, public_keys)
    assert opened(recorded, keys, associated_data) == 0
    if strategy != "differential":
        assert after.closed_states >= len(recorded)
    await house.close()
