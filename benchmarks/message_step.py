"""``python -m benchmarks.message_step``: a session with and without the native step of a message.

One end encrypts a thousand messages, the other decrypts them, in one process, no journal, no
transport: what ``native_message_step`` saves of a session's own work. Each round takes both
implementations in turns, the one that was second now first. Times are CPU time of the process.
Takes some 5 s.
"""

import gc
import os
import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import better_by, require, rounds_from_arguments, spread
from connect_actor.protocol import message_step
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.message_step import NATIVE, PYTHON
from connect_actor.v1 import connect_pb2 as wire

MESSAGES = 1_000
REPETITIONS = 5
SIZES = (64, 1_024)
_MICROSECONDS = 1e6

Figures = dict[str, float]
"""Microseconds of CPU a message, by what was done."""


def _measure(*, native: bool) -> Figures:
    require(message_step.use(native=native) is (NATIVE if native else PYTHON))
    figures: Figures = {}
    source = os.urandom
    for size in SIZES:
        plaintexts = [os.urandom(size) for _ in range(MESSAGES)]
        times = []
        for _ in range(REPETITIONS):
            now = time.time_ns() // 1_000
            initiation = Initiation.begin(Identity.generate(source), source)
            receiver = respond(
                initiation.request,
                identity=Identity.generate(source),
                limits=ChannelLimits(),
                now=now,
                random=source,
            )
            sender = initiation.complete(
                wire.EstablishResponse.FromString(receiver.handshake.response)
            )
            gc.collect()
            begun = time.process_time()
            payloads = [sender.encrypt(text, now=now, random=source)[0] for text in plaintexts]
            encrypted = time.process_time()
            opened = [receiver.decrypt(payload, now=now)[0] for payload in payloads]
            decrypted = time.process_time()
            require(opened == plaintexts)
            times.append((encrypted - begun, decrypted - encrypted))
        # The least disturbed repetition, of each.
        for name, least in zip(("encrypt", "decrypt"), map(min, *times), strict=True):
            figures[f"{name}, {size:,} B"] = least / MESSAGES * _MICROSECONDS
    return figures


def _table(rounds: Sequence[Mapping[bool, Figures]]) -> Table:
    table = Table(title=f"{len(rounds)} rounds: median (lowest to highest)", box=box.SIMPLE_HEAD)
    for heading in ("one message", "Python", "native", "native is better by"):
        table.add_column(heading, justify="left" if heading == "one message" else "right")
    for job in rounds[0][True]:
        python, native = ([figures[which][job] for figures in rounds] for which in (False, True))
        table.add_row(job, spread(python, "µs"), spread(native, "µs"), better_by(python, native))
    return table


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    require(NATIVE is not None)
    orders = ((False, True), (True, False))
    rounds = [
        {native: _measure(native=native) for native in orders[number % 2]}
        for number in range(count)
    ]
    Console().print(_table(rounds))


if __name__ == "__main__":
    main()
