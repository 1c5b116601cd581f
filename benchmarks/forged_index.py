"""``python -m benchmarks.forged_index``: what one caller waits while another sends forgeries.

A service with tokens and otherwise default settings; a victim that encrypts one message after the
other by unary calls, 20 ms apart; and an attacker, a process and a principal of its own, that sends
messages with a forged index over one stream, for 64 channels, as fast as the service takes them. In
each round the victim is measured alone, attacked and afterwards; figures are of all rounds. Takes a
minute and a half; needs two idle cores to say much.

``flood`` is the attack alone, for other programs that attack a service.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from connect_actor.access.tokens import new_token, token_line
from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.service.process import ServiceOptions, ServiceProcess

CHANNELS = 64
FRAME_OPERATIONS = 64
# Index that is forged, and operations in flight: as cheap as can be, and as dear.
ATTACKS = ((0, 2_048), (1_000, 64), (1_000, 2_048))
ROUNDS = 5
SECONDS = 2.0
PAUSE = 0.02
PATIENCE = 60.0

# The attacker's, in its environment: a command line is for all to see.
_TOKEN = "ATTACKERS_TOKEN"  # noqa: S105 - its name


async def flood(address: str, token: str | None, *, index: int, in_flight: int) -> None:
    """Send forgeries until cancelled, or until the service ends the stream."""
    async with ConnectClient(address, token=token) as client:
        identity = Identity.generate(os.urandom)
        channels = [await client.establish(identity) for _ in range(CHANNELS)]
        print("ready", flush=True)
        room = asyncio.Semaphore(in_flight)
        async for frame in client.stub.Exchange(_forgeries(channels, index, room)):
            for _ in frame.results:
                room.release()


async def _forgeries(
    channels: list[Channel], index: int, room: asyncio.Semaphore
) -> AsyncIterator[wire.OperationFrame]:
    forgeries = []
    for channel in channels:
        payload = channel.seal(b"")
        payload.ratchet_index = index
        payload.ciphertext = bytes(32)
        request = wire.DecryptRequest(connect_id=channel.connect_id, payload=payload)
        forgeries.append(wire.Operation(operation_id=1, decrypt=request))
    while True:
        await room.acquire()
        frame = wire.OperationFrame(operations=[forgeries[0]])
        while len(frame.operations) < FRAME_OPERATIONS and not room.locked():
            await room.acquire()
            frame.operations.append(forgeries[len(frame.operations) % len(forgeries)])
        yield frame


async def _latencies(victim: Channel) -> list[float]:
    """Return the milliseconds that calls took, one after the other for a while."""
    found = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        await victim.encrypt(b"x")
        found.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(PAUSE)
    return found


async def _round(
    victim: Channel, command: list[str], token: str, phases: dict[str, list[float]]
) -> None:
    phases["alone"] += await _latencies(victim)
    attacker = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, env={**os.environ, _TOKEN: token}
    )
    try:
        assert attacker.stdout is not None  # noqa: S101 - it is piped
        await asyncio.wait_for(attacker.stdout.readline(), PATIENCE)
        phases["attacked"] += await _latencies(victim)
    finally:
        attacker.kill()
        await attacker.wait()
    phases["afterwards"] += await _latencies(victim)


def _figures(latencies: list[float]) -> tuple[str, float]:
    ordered = sorted(latencies)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"{ordered[len(ordered) // 2]:.1f} / {p99:.1f}", p99


async def measure(rounds: int) -> Table:
    """Measure the victim under each attack; return a table."""
    table = Table(title="Victim's latency, p50 / p99 in ms")
    for column in ("index", "in flight", "alone", "attacked", "afterwards", "p99 ratio"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as directory:
        alice, mallory = new_token(), new_token()
        tokens = Path(directory, "tokens")
        lines = token_line("alice", alice), token_line("mallory", mallory)
        tokens.write_text("\n".join(lines))  # noqa: ASYNC240 - nothing else runs yet
        options = ServiceOptions(
            "differential", "sqlite", Path(directory, "data"), flags=("--token-file", str(tokens))
        )
        async with (
            ServiceProcess(options, PATIENCE) as service,
            ConnectClient(service.listen, token=alice) as client,
        ):
            victim = await client.establish(Identity.generate(os.urandom))
            for index, in_flight in ATTACKS:
                command = [sys.executable, "-m", "benchmarks.forged_index", "--flood"]
                command += [service.listen, str(index), str(in_flight)]
                phases: dict[str, list[float]] = {"alone": [], "attacked": [], "afterwards": []}
                for _ in range(rounds):
                    await _round(victim, command, mallory, phases)
                told = {name: _figures(found) for name, found in phases.items()}
                ratio = told["attacked"][1] / told["alone"][1]
                texts = (text for text, _ in told.values())
                table.add_row(str(index), str(in_flight), *texts, f"{ratio:.1f}")
    return table


def main() -> None:
    """Measure, or attack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--flood", nargs=3, metavar=("ADDRESS", "INDEX", "IN_FLIGHT"))
    arguments = parser.parse_args()
    if arguments.flood:
        address, index, in_flight = arguments.flood
        token = os.environ.get(_TOKEN)
        asyncio.run(flood(address, token, index=int(index), in_flight=int(in_flight)))
    else:
        Console().print(asyncio.run(measure(arguments.rounds)))


if __name__ == "__main__":
    main()
