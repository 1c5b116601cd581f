"""Peers that know where their channels stand: what a service does with a damaged journal.

A channel may be served only as it was left; to be served as it was some time before would mean to
use message keys twice. Or it is refused, and so may be the whole journal.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connect_actor.actors.commands import Encrypt, Restore
from connect_actor.errors import (
    AuthenticationFailedError,
    ChannelDamagedError,
    ChannelNotFoundError,
    ConnectError,
    ReadFailedError,
)
from connect_actor.persistence.contract import JournalError
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from tests.faults.disk import Files, load
from tests.support.house import House, PeerEnd, answer
from tests.support.journals import MASTER_KEY, sqlite_journal

__all__ = ["OPENING", "Left", "Verdict", "judge", "leave"]

Verdict = Counter[str]
"""How many channels were ``served``, ``refused`` as damaged, ``unreadable`` for the time being,
said to be ``unknown``, or ``stale``: served as they were before."""

_WORDS: dict[type[ConnectError], str] = {
    ChannelDamagedError: "refused",
    ReadFailedError: "unreadable",
    ChannelNotFoundError: "unknown",
    # Either end can't open what the other has sealed.
    AuthenticationFailedError: "wrong",
}

# A snapshot at every fourth record, and some records behind the last.
_INTERVAL = 4
_ROUND_TRIPS = 3
OPENING = "journal refused"
"""Verdict on every channel, if the journal does not open."""


@dataclass(frozen=True, slots=True)
class Witness:
    """One channel, as its peer and the service left it."""

    connect_id: int
    session: bytes
    stands: Any
    """What the service answered to ``Restore``."""
    used: frozenset[tuple[bytes, int]]
    """Ratchet key and number of all payloads of the service."""


@dataclass(frozen=True, slots=True)
class Left:
    """A journal and its channels."""

    files: Files
    witnesses: tuple[Witness, ...]


async def leave(
    directory: Path,
    channels: int,
    *,
    key: bytes = MASTER_KEY,
    seed: int = 1,
    crashed: bool = False,
) -> Left:
    """Make a journal with channels in use, and close it; or crash, with all in the WAL."""
    house = House(sqlite_journal(directory / "journal.db", key=key), snapshot_interval=_INTERVAL)
    witnesses = []
    for number in range(channels):
        peer = await house.establish(seed + number)
        used = []
        for turn in range(_ROUND_TRIPS + number):
            await peer.decrypt(peer.seal(b"up %d" % turn))
            used.append(await peer.encrypt(b"down %d" % turn))
            peer.open(used[-1])
        stands = await answer(peer.ask(Restore()))
        witnesses.append(_witness(peer, stands, used))
    found = load(directory)
    await house.close()
    return Left(found if crashed else load(directory), tuple(witnesses))


def _witness(peer: PeerEnd, stands: object, used: list[Payload]) -> Witness:
    keys = frozenset(
        (payload.header.ratchet_key, payload.header.message_number) for payload in used
    )
    return Witness(peer.connect_id, peer.session.encode(), stands, keys)


async def judge(
    directory: Path, witnesses: tuple[Witness, ...], *, key: bytes = MASTER_KEY
) -> Verdict:
    """Open a journal, and ask for all channels."""
    try:
        house = House(
            sqlite_journal(directory / "journal.db", key=key), snapshot_interval=_INTERVAL
        )
    except JournalError:
        return Counter({OPENING: len(witnesses)})
    try:
        return Counter([await _ask(house, witness) for witness in witnesses])
    finally:
        await house.close()


async def _ask(house: House, witness: Witness) -> str:
    peer = PeerEnd(house, witness.connect_id, Session.decode(witness.session))
    try:
        stands = await answer(peer.ask(Restore()))
        payload = await answer(peer.ask(Encrypt(b"after")))
        key = (payload.header.ratchet_key, payload.header.message_number)
        if stands != witness.stands or key in witness.used:
            return "stale"
        talks = peer.open(payload) == b"after" and await peer.decrypt(peer.seal(b"up")) == b"up"
    except ConnectError as error:
        return _WORDS.get(type(error), type(error).__name__)
    return "served" if talks else "wrong"
