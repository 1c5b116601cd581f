"""Seals: no (key, nonce) pair comes twice, whatever is copied or cloned; the older form opens."""

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.persistence.contract import Batch, CorruptRecordError, Record, RecordKind, Snapshot
from service.persistence.keyring import KeyRing
from service.persistence.log_rows import (
    SEALED_STATE,
    STATE_SEALED_BEFORE,
    RowWriter,
    entries_of,
    record_at,
)
from service.persistence.sealing import (
    SALT_SIZE,
    STATE_KEY_SIZE,
    Sealer,
    StateCipher,
    canary_context,
    directory_context,
    snapshot_context,
    state_context,
)
from service.persistence.sqlite import SqliteJournal
from service.persistence.sqlite_file import know_epochs, newest_epoch

KEYS = KeyRing.of(bytes(range(32)))
CONTEXT = directory_context(7)
EPOCH_AND_NONCE = slice(0, 16)


def begun(epoch: int = 3, random: Callable[[int], bytes] = os.urandom) -> Sealer:
    """Return a sealer of an epoch; two of them are what a clone of the memory holds."""
    sealer = Sealer(random)
    sealer.begin_epoch(epoch, KEYS.sealing, bytes(SALT_SIZE), "full")
    return sealer


# --- Nonces ---------------------------------------------------------------------------------------


def test_nonces_of_one_epoch_differ_even_if_the_kernel_gives_the_same_bytes_for_ever() -> None:
    sealer = begun(random=bytes)
    nonces = {sealer.seal(b"x", CONTEXT)[EPOCH_AND_NONCE] for _ in range(1_000)}
    assert len(nonces) == 1_000


def test_a_clone_of_the_memory_seals_under_other_nonces() -> None:
    one, other = begun(), begun()
    pairs = [(one.seal(b"1", CONTEXT), other.seal(b"2", CONTEXT)) for _ in range(1_000)]
    assert all(first[:9] == second[:9] for first, second in pairs)  # epoch and counter
    assert not any(first[EPOCH_AND_NONCE] == second[EPOCH_AND_NONCE] for first, second in pairs)
    assert [other.open(first, CONTEXT) for first, _ in pairs] == [b"1"] * 1_000


_CLONED = """
import os
from service.keyfiles import _seal
from service.persistence.keyring import KeyRing
from service.persistence.sealing import Sealer, StateCipher
from service.protocol.handshake import ChannelLimits, Initiation, respond
from service.protocol.keys import Identity

key = KeyRing.of(bytes(range(32))).sealing
identity = Identity.generate(os.urandom)
initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom)
session = respond(
    initiation.request, identity=identity, limits=ChannelLimits(), now=0, random=os.urandom
)
sealer, states = Sealer(), StateCipher(bytes(32))
sealer.begin_epoch(1, key, bytes(32), "full")
for each in (lambda: sealer.seal(b"", b""), lambda: states.seal(b"", b"")):
    each()
session.encrypt(b"", now=1, random=os.urandom)

if os.fork():
    os.wait()
payload = session.encrypt(b"x", now=1, random=os.urandom)[0]
drawn = (payload.nonce, sealer.seal(b"", b"")[4:16], states.seal(b"", b"")[:24])
print(*(part.hex() for part in drawn), _seal(identity, key, os.urandom)[8:20].hex(), flush=True)
os._exit(0)
"""


def test_two_processes_of_one_memory_draw_other_nonces_wherever_one_is_drawn() -> None:
    """A fork is what a snapshot of a virtual machine is that is resumed twice."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", _CLONED], check=True, stdout=subprocess.PIPE, text=True
    )
    one, other = (line.split() for line in done.stdout.splitlines())
    assert len(one) == len(other) == 4
    assert not set(one) & set(other)


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_two_copies_of_a_directory_never_seal_a_state_under_one_key_and_nonce(
    tmp_path: Path, strategy: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    journal = SqliteJournal(first / "journal.db", keys=KEYS, strategy=strategy)
    journal.commit(
        Batch([Record(1, 1, RecordKind.ESTABLISHED, b"")], [Snapshot(1, 1, 5, b"whole")])
    )
    journal.close()
    shutil.copytree(first, second)
    sealed = []
    for directory in (first, second):
        path = directory / "journal.db"
        journal = SqliteJournal(path, keys=KEYS, strategy=strategy, moved=True)
        journal.commit(Batch([Record(1, 2, RecordKind.STATE, b"state")]))
        assert journal.recover(1).records[-1].payload == b"state"
        sealed.append(newest_state(journal))
        journal.close()
    assert sealed[0][:12] != sealed[1][:12]  # what the key is derived from
    assert sealed[0][12:24] != sealed[1][12:24]  # the nonce


def newest_state(journal: SqliteJournal) -> bytes:
    reader = journal._usable()
    number, directory, payloads = reader.connection.execute(
        "SELECT * FROM log ORDER BY number DESC LIMIT 1"
    ).fetchone()
    opened = reader.sealer.open_payloads(number, directory, payloads)
    listed = reader.sealer.open(directory, directory_context(number))
    (place,) = (entry[0] for entry in entries_of(number, listed) if entry[3] == SEALED_STATE)
    return record_at(place, opened)[1]


# --- What is bound --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["epoch", "nonce", "ciphertext", "tag"])
def test_a_blob_with_one_bit_changed_does_not_open(part: str) -> None:
    sealer = begun()
    at = {"epoch": 3, "nonce": 15, "ciphertext": 16, "tag": -1}[part]
    blob = bytearray(sealer.seal(b"payload", CONTEXT))
    blob[at] ^= 1
    with pytest.raises(CorruptRecordError):
        sealer.open(bytes(blob), CONTEXT)


def test_payloads_open_behind_their_own_directory_only_not_behind_a_clones() -> None:
    one, other = begun(), begun()
    directory, payloads = one.seal_row(1, b"d", b"p")
    foreign, _ = other.seal_row(1, b"d", b"p")
    assert one.open_payloads(1, directory, payloads) == b"p"
    with pytest.raises(CorruptRecordError):
        one.open_payloads(1, foreign, payloads)


@pytest.mark.parametrize("size", [0, 11, 12, 24, 39])
def test_a_state_that_is_cut_does_not_open(size: int) -> None:
    cipher = StateCipher(bytes(STATE_KEY_SIZE))
    blob = cipher.seal(b"", b"here")
    assert len(blob) == 40
    with pytest.raises(CorruptRecordError):
        cipher.open(blob[:size], b"here")


# --- The form before ------------------------------------------------------------------------------


class FormerSealer:
    """Seals as seal v2 did: nonce of epoch and counter, in front of the ciphertext."""

    def __init__(self, epoch: int, salt: bytes, strategy: str) -> None:
        info = b"connect-actor journal seal v2 " + strategy.encode()
        derivation = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info)
        self.cipher = AESGCM(derivation.derive(KEYS.sealing.secret))
        self.epoch = epoch
        self.counter = 0

    def seal(self, payload: bytes, context: bytes, cipher: AESGCM | None = None) -> bytes:
        self.counter += 1
        nonce = struct.pack(">IQ", self.epoch, self.counter)
        return nonce + (cipher or self.cipher).encrypt(nonce, payload, context)

    def seal_row(self, number: int, directory: bytes, payloads: bytes) -> tuple[bytes, bytes]:
        sealed = self.seal(directory, directory_context(number))
        context = struct.pack(">BBQQQ", 2, 2, number, 0, 0) + sealed[:12]
        return sealed, self.seal(payloads, context)


def test_epochs_of_the_former_form_open_beside_those_of_this_one() -> None:
    former = FormerSealer(2, b"s" * SALT_SIZE, "cached")
    canary = former.seal(b"canary", canary_context(2))
    row = former.seal_row(9, b"directory", b"payloads")
    sealer = begun(3)
    assert sealer.know_epoch(2, KEYS.sealing, b"s" * SALT_SIZE, "cached", canary) == b"canary"
    assert sealer.open(row[0], directory_context(9)) == b"directory"
    assert sealer.open_payloads(9, *row) == b"payloads"
    assert sealer.open(sealer.seal(b"new", CONTEXT), CONTEXT) == b"new"
    with pytest.raises(CorruptRecordError):
        sealer.open_payloads(9, former.seal(b"directory", directory_context(9)), row[1])


@pytest.mark.parametrize("wrong", ["key", "salt", "strategy", "canary"])
def test_an_epoch_whose_canary_does_not_open_is_not_known(wrong: str) -> None:
    sealer = Sealer()
    canary = FormerSealer(2, bytes(SALT_SIZE), "full").seal(b"", canary_context(2))
    with pytest.raises(CorruptRecordError):
        sealer.know_epoch(
            2,
            KeyRing.of(bytes(32)).sealing if wrong == "key" else KEYS.sealing,
            (b"1" if wrong == "salt" else b"\0") * SALT_SIZE,
            "cached" if wrong == "strategy" else "full",
            bytes(48) if wrong == "canary" else canary,
        )
    with pytest.raises(CorruptRecordError):
        sealer.open(canary, canary_context(2))


def test_a_state_of_the_former_form_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = SqliteJournal(path, keys=KEYS, strategy="full")
    journal.commit(
        Batch([Record(1, 1, RecordKind.ESTABLISHED, b"")], [Snapshot(1, 1, 5, b"whole")])
    )
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        sealer = Sealer()
        know_epochs(connection, path, KEYS, sealer)
        epoch = newest_epoch(connection)
        salt = b"t" * SALT_SIZE
        former = FormerSealer(epoch + 1, salt, "full")
        (blob,) = connection.execute("SELECT payload FROM snapshots").fetchone()
        key = sealer.open(blob, snapshot_context(1, 1, 5))[:STATE_KEY_SIZE]
        writer = RowWriter(2)
        state = former.seal(b"the state", state_context(1, 2), AESGCM(key))
        writer.add(1, 2, STATE_SEALED_BEFORE, state)
        writer.finish()
        connection.execute(
            "INSERT INTO writers SELECT ?, strategy, opened_at, key_id, ?, ? FROM writers",
            (epoch + 1, salt, former.seal(b"connect-actor canary", canary_context(epoch + 1))),
        )
        row = former.seal_row(*writer.rows[0])
        connection.execute("INSERT INTO log VALUES (2, ?, ?)", row)
        connection.commit()
    journal = SqliteJournal(path, keys=KEYS, strategy="full")
    assert journal.recover(1).records[-1].payload == b"the state"
    journal.commit(Batch([Record(1, 3, RecordKind.STATE, b"the next")]))
    assert [record.payload for record in journal.recover(1).records] == [b"the next"]
    journal.close()
