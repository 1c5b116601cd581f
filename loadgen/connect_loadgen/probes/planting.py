"""Channels in their thousands without handshakes: written straight into a journal's file.

They are copies, under ids of their own, of one channel that was really established: the keys are
the same, the bytes that the service holds of each are not. To the service's memory, caches and
journal they are as many channels; what a handshake costs is another row's subject.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connect_actor.client import Channel, ConnectClient
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Batch, Record, RecordKind, Snapshot
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.process.paths import journal_file
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.peer import RefusedByPeerError
from connect_loadgen.drive.transport import Transport, TransportError, ask_all

__all__ = ["Planted", "bring_to_life", "plant"]

_A_COMMIT = 1_000
# What the service is asked for at once: some seconds' work.
_AT_ONCE = 4_096
_KEYS_FILE = "planted.key"


@dataclass(frozen=True, slots=True)
class Planted:
    """Channels that lie in a journal, and what their peers' ends are made of."""

    flags: tuple[str, ...]
    """What the service has to be told to read that journal."""
    key: bytes = field(repr=False)
    """The master key of that journal, which is worth nothing elsewhere."""
    _count: int
    _peer: bytes = field(repr=False)

    def ends(self, client: ConnectClient) -> list[ChannelEnd]:
        """Return the peers' ends, each on its own."""
        return [
            ChannelEnd(Channel(number, Session.decode(self._peer), client.stub))
            for number in range(1, self._count + 1)
        ]


def plant(data_dir: Path, channels: int) -> Planted:
    """Write the journal of a service that has so many channels and has not used them yet.

    Args:
        data_dir: of a service that has never run.
        channels: how many; their ids begin at 1.
    """
    identity = Identity.generate(os.urandom)
    now = time.time_ns() // 1_000
    initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom)
    session = respond(
        initiation.request,
        identity=identity,
        limits=ChannelLimits(),
        now=now,
        random=os.urandom,
    )
    peer = initiation.complete(wire.EstablishResponse.FromString(session.handshake.response))
    key, keys_file = os.urandom(32), data_dir / _KEYS_FILE
    keys_file.touch(mode=0o600)
    keys_file.write_text(f"{key.hex()}\n")
    journal = SqliteJournal(
        data_dir / journal_file(0, 1), keys=KeyRing.of(key), strategy="differential"
    )
    state = session.encode()
    try:
        for first in range(1, channels + 1, _A_COMMIT):
            numbers = range(first, min(first + _A_COMMIT, channels + 1))
            rejected = journal.commit(
                Batch(
                    [Record(number, 1, RecordKind.ESTABLISHED, b"") for number in numbers],
                    [Snapshot(number, 1, now, state) for number in numbers],
                )
            )
            if rejected:
                raise RuntimeError(f"the journal has refused {len(rejected)} planted channels")
    finally:
        journal.close()
    return Planted((f"--sealing-key-file={keys_file}",), key, channels, peer.encode())


async def bring_to_life(
    transport: Transport, ends: Sequence[ChannelEnd], *, patience: float
) -> None:
    """Have every channel carry a message, so that nothing that the first one costs is left.

    Args:
        transport: the way to the service; its listener is replaced.
        ends: of the channels.
        patience: how long some thousands may take, seconds.

    Raises:
        TransportError: the service can't be reached, or one of them does not live.
    """
    for first in range(0, len(ends), _AT_ONCE):
        some = ends[first : first + _AT_ONCE]
        operations = [
            wire.Operation(
                operation_id=number, encrypt=wire.EncryptRequest(connect_id=end.connect_id)
            )
            for number, end in enumerate(some)
        ]
        results = await ask_all(transport, operations, patience=patience)
        for end, result in zip(some, results, strict=True):
            if result.WhichOneof("outcome") != "encrypt":
                raise TransportError(f"a planted channel does not live: {result.error.message}")
            try:
                end.open(result.encrypt.payload)
            except RefusedByPeerError as error:
                raise TransportError(f"a planted channel answers WRONGLY: {error}") from error
