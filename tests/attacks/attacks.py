"""The attacks: each goes on, at one service, until it is cancelled.

They run in a process of their own (``tests.attacks.arena``) and need nothing but what a stranger
has, or, where they say so, a caller's token.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass

from h2.exceptions import ProtocolError

from connect_actor.v1 import connect_pb2 as wire
from tests.support.http2 import RawPeer, framed

__all__ = ["ATTACKS", "Attack", "Target"]

_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

# Calls that a connection may have open, by the service's default.
_CALLS = 256
# Within the service's default of 4 MiB.
_LARGE = 4_100_000


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service is, and what the attacker may show it."""

    listen: str
    metrics: str
    token: str
    source: str = "127.0.0.2"
    """The local address that the attacker connects from; the victim has another."""

    @property
    def authorized(self) -> Sequence[tuple[str, str]]:
        """The metadata of a caller who is known."""
        return (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack."""

    name: str
    says: str
    """What the attacker does, for the table."""
    run: Callable[[Target], Coroutine[None, None, None]]
    open_service: bool = False
    """Whether the service authenticates nobody: the attacker needs no token then."""


async def _each(count: int, attack: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*(attack() for _ in range(count)))


async def _connections(
    target: Target,
    count: int,
    attack: Callable[[RawPeer], Awaitable[None]],
    window: int | None = None,
) -> None:
    """Attack over so many connections; one that the service closes is opened anew."""

    async def one() -> None:
        while True:
            # A connection that has no room left in its window is as good as closed.
            with suppress(OSError, ProtocolError):
                async with RawPeer(target.listen, window=window, source=target.source) as peer:
                    await attack(peer)
            await asyncio.sleep(0.05)

    await _each(count, one)


def _keeping_open(
    method: str, *data: bytes, metadata: Sequence[tuple[str, str]] = (), end: bool = False
) -> Callable[[RawPeer], Awaitable[None]]:
    """Return an attack that has as many calls open as it can; one that ends is made anew."""

    async def attack(peer: RawPeer) -> None:
        calls: set[int] = set()
        while True:
            calls -= peer.over
            while len(calls) < _CALLS:
                calls.add(peer.call(method, *data, metadata=metadata, end=end))
            await peer.drained()
            await peer.until(lambda: not calls.isdisjoint(peer.over))  # noqa: B023 - over before the next round

    return attack


async def _headers_only(target: Target) -> None:
    await _connections(target, 20, _keeping_open("Encrypt"))


async def _unfinished(target: Target, metadata: Sequence[tuple[str, str]] = ()) -> None:
    async def attack(peer: RawPeer) -> None:
        calls: set[int] = set()
        while True:
            calls -= peer.over
            while len(calls) < _CALLS:
                calls.add(peer.call("Encrypt", framed(b"", _LARGE), metadata=metadata))
            sent = sum(peer.send(call, 65_536) for call in calls)
            await peer.drained()
            await asyncio.sleep(0 if sent else 0.02)

    await _connections(target, 2, attack)


async def _unfinished_by_a_caller(target: Target) -> None:
    await _unfinished(target, target.authorized)


async def _unread(target: Target) -> None:
    """Send operations over streams, and read nothing."""
    request = wire.EncryptRequest(connect_id=1, plaintext=bytes(1_024))
    frame = framed(
        wire.OperationFrame(operations=[wire.Operation(encrypt=request)] * 15).SerializeToString()
    )

    async def attack(peer: RawPeer) -> None:
        calls = [peer.call("Exchange", metadata=target.authorized) for _ in range(200)]
        while len(peer.over) < len(calls):
            sent = sum(peer.write(call, frame) for call in calls)
            await peer.drained()
            await asyncio.sleep(0 if sent else 0.02)

    await _connections(target, 4, attack, window=0)


async def _watches(target: Target) -> None:
    await _connections(target, 8, _keeping_open(_WATCH, framed(b""), end=True))


async def _checks_unread(target: Target) -> None:
    await _connections(target, 8, _keeping_open(_CHECK, framed(b""), end=True), window=0)


async def _reflections(target: Target) -> None:
    await _connections(target, 8, _keeping_open(_REFLECTION))


async def _resets(target: Target) -> None:
    async def attack(peer: RawPeer) -> None:
        while True:
            for _ in range(50):
                peer.reset(peer.call("Encrypt"))
            await peer.drained()
            await asyncio.sleep(0)

    await _connections(target, 4, attack)


async def _malformed(target: Target) -> None:
    await _connections(
        target, 4, _keeping_open("Encrypt", framed(b"\x0a\xff\xff" + bytes(1_024)), end=True)
    )


async def _no_names(target: Target) -> None:
    numbers = itertools.count()

    async def attack(peer: RawPeer) -> None:
        while True:
            call = peer.call(f"/no/such-{next(numbers)}\xff", end=True)
            await peer.until(lambda: call in peer.over)  # noqa: B023 - over before the next round

    await _connections(target, 4, attack)


async def _silent_scrapes(target: Target) -> None:
    host, _, port = target.metrics.rpartition(":")

    async def one() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET /metrics HTTP/1.1\r\n")
                await reader.read()
                writer.close()
            await asyncio.sleep(0.05)

    await _each(300, one)


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack(
            "headers", "20 connections keep 256 calls open each, without messages", _headers_only
        ),
        Attack(
            "headers-open",
            "the same, of a service that authenticates nobody",
            _headers_only,
            open_service=True,
        ),
        Attack("unfinished", "2 connections send 256 messages of 4 MB without an end", _unfinished),
        Attack(
            "unfinished-by-caller", "the same, by a caller with a token", _unfinished_by_a_caller
        ),
        Attack("unread", "a caller with a token sends over 800 streams and reads nothing", _unread),
        Attack("watches", "8 connections watch health 256 times each", _watches),
        Attack("checks-unread", "8 connections check health and read no answer", _checks_unread),
        Attack("reflections", "8 connections open 256 reflection streams each", _reflections),
        Attack("resets", "4 connections open calls and reset them", _resets),
        Attack("malformed", "4 connections send malformed messages, without a token", _malformed),
        Attack("no-names", "4 connections call methods whose names are no UTF-8", _no_names),
        Attack(
            "silent-scrapes",
            "300 connections to the metrics port send half a request",
            _silent_scrapes,
        ),
    )
}
"""All attacks, by name."""
