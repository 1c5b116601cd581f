"""Seals: no (key, nonce) pair comes twice, whatever is copied or cloned; the older form opens."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.log_rows import (
    SEALED_STATE,
    entries_of,
    record_at,
)
from connect_actor.persistence.sealing import (
    SALT_SIZE,
    STATE_KEY_SIZE,
    Sealer,
    StateCipher,
    directory_context,
    state_context,
)
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.support.former_seals import FormerSealer

KEYS = KeyRing.of(bytes(range(32)))
CONTEXT = directory_context(7)
EPOCH_AND_NONCE = slice(0, 16)


def begun(epoch: int = 3, random: Callable[[int], bytes] = os.urandom) -> Sealer:
    """Return a sealer of an epoch; two of them are what a clone of the memory holds."""
    sealer = Sealer(random=random)
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
from connect_actor.keys.sources import _seal
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.sealing import Sealer, StateCipher
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity

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


def test_the_former_form_opens_as_such_only() -> None:
    former = FormerSealer(2, KEYS.sealing, b"s" * SALT_SIZE, "cached")
    row = former.seal_row(9, b"directory", b"payloads")
    before, now = Sealer(2), Sealer()
    for sealer in (before, now):
        sealer.know_epoch(2, KEYS.sealing, b"s" * SALT_SIZE, "cached")
    assert before.open(row[0], directory_context(9)) == b"directory"
    assert before.open_payloads(9, *row) == b"payloads"
    with pytest.raises(CorruptRecordError):
        before.open_payloads(9, former.seal(b"directory", directory_context(9)), row[1])
    with pytest.raises(CorruptRecordError):
        now.open(row[0], directory_context(9))


def test_a_state_of_the_former_form_opens_under_the_snapshots_key_itself() -> None:
    key = bytes(range(STATE_KEY_SIZE))
    former = FormerSealer(2, KEYS.sealing, bytes(SALT_SIZE), "full")
    sealed = former.seal(b"the state", state_context(1, 2), AESGCM(key))
    assert StateCipher(key).open_before(sealed, state_context(1, 2)) == b"the state"
    with pytest.raises(CorruptRecordError):
        StateCipher(key).open_before(sealed, state_context(1, 3))
