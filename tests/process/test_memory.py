"""What is left of old keys in a process's memory, found by reading all of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.compiler import needs_native_step

_CHANNELS = 20
_ENDS = 2 * _CHANNELS

# Both ends of channels, from seeds: the same keys in every run. The one that tells its keys is not
# the one whose memory is searched.
_TALK = """
import hashlib, itertools, os, signal, sys
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.protocol import message_step, primitives
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity

channels, messages, tells = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "tell"
drawn = itertools.count()

def random(size):
    return hashlib.shake_256(b"%d" % next(drawn)).digest(size)

old, step = {}, primitives.step_chain

def step_and_note(key):
    message_key, following = step(key)
    old[key] = "chain"
    old[message_key] = "message"
    return message_key, following

if tells:
    message_step.use(native=False)
    primitives.step_chain = step_and_note
else:
    message_step.use(native=sys.argv[3] == "native")
limits, ends = ChannelLimits(redelivery_window=0), []
for _ in range(channels):
    initiation = Initiation.begin(Identity.generate(random), random)
    service = respond(
        initiation.request, identity=Identity.generate(random), limits=limits, now=0, random=random
    )
    response = wire.EstablishResponse.FromString(service.handshake.response)
    ends.append((service, initiation.complete(response)))
for _ in range(messages):
    for service, peer in ends:
        down = service.encrypt(b"down", now=1, random=random)[0]
        up = peer.encrypt(b"up", now=1, random=random)[0]
        peer.decrypt(down, now=1)
        service.decrypt(up, now=1)
if tells:
    for key, kind in old.items():
        print(kind, key.hex())
else:
    live = [
        chain.chain_key
        for end in itertools.chain.from_iterable(ends)
        for chain in (end.ratchet.sending, end.ratchet.receiving)
    ]
    print(live[0].hex(), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def _arguments(messages: int, what: str) -> list[str]:
    return [sys.executable, "-c", _TALK, str(_CHANNELS), str(messages), what]


def old_keys(messages: int) -> dict[str, set[bytes]]:
    """Return the keys that the ends have left behind, by kind."""
    told = subprocess.run(  # noqa: S603 - our own script
        _arguments(messages, "tell"), check=True, stdout=subprocess.PIPE, text=True
    )
    keys: dict[str, set[bytes]] = {"chain": set(), "message": set()}
    for line in told.stdout.splitlines():
        kind, key = line.split()
        keys[kind].add(bytes.fromhex(key))
    return keys


@contextmanager
def stopped(messages: int, step: str) -> Iterator[tuple[int, bytes]]:
    """Yield a process that has talked, and a key that it still holds."""
    with subprocess.Popen(  # noqa: S603 - our own script
        _arguments(messages, step), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            live = bytes.fromhex(process.stdout.readline().decode())
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process.pid, live
        finally:
            process.kill()


def memory_of(process: int) -> Iterator[bytes]:
    """Yield all that a process can write to, mapping by mapping."""
    try:
        memory = Path(f"/proc/{process}/mem").open("rb", buffering=0)  # noqa: SIM115 - closed below
    except PermissionError:
        pytest.skip("no process may read another one's memory here")
    with memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if "w" in rights:
                begin, end = (int(part, 16) for part in place.split("-"))
                memory.seek(begin)
                yield memory.read(end - begin)


def found_in(process: int, keys: set[bytes]) -> set[bytes]:
    """Return the keys that lie anywhere in a process's memory, at the alignment of a pointer."""
    heads: dict[bytes, list[bytes]] = {}
    for key in keys:
        heads.setdefault(key[:8], []).append(key)
    found = set()
    for content in memory_of(process):
        for offset in range(0, len(content) - 31, 8):
            for key in heads.get(content[offset : offset + 8], ()):
                if content[offset : offset + 32] == key:
                    found.add(key)
    return found


@pytest.mark.parametrize("step", ["python", pytest.param("native", marks=needs_native_step)])
@pytest.mark.parametrize("messages", [20, 100])
def test_what_is_left_of_old_keys_does_not_grow_with_the_messages(messages: int, step: str) -> None:
    """Python wipes nothing: a freed key stays until its place is used again, which is soon.

    The bound of ``docs/explanation/threat-model.md``: one chain key for each end, whatever has
    been said, and of message keys those that were used last.
    """
    keys = old_keys(messages)
    padded = {
        bytes(byte ^ pad for byte in key): key for key in keys["chain"] for pad in (0x36, 0x5C)
    }
    with stopped(messages, step) as (process, live):
        found = found_in(process, {live, *padded, *keys["chain"], *keys["message"]})
    assert live in found  # the search finds what is there
    chain = {padded.get(key, key) for key in found} & keys["chain"] - {live}
    assert len(keys["chain"]) >= _ENDS * messages
    assert len(chain) <= _ENDS + 4
    assert len(found & keys["message"]) <= 4
