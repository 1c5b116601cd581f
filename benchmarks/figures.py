"""``python -m benchmarks.figures [NAME ...]``: figures of the service that need its own process.

- ``calls``: Python calls, files and moves between files of one Encrypt on the stream
  (``benchmarks.calls``);
- ``lines``: code lines of the service, without docstrings, comments, blanks and generated modules;
- ``copies``: how often a payload byte is allocated anew: the slope of the bytes that the service's
  process asks of Python's allocators over the size of the payload, gRPC's Python layer included;
- ``decrypt``: CPU of a durable Decrypt, with redelivery windows 0 and 16, and of an Encrypt;
- ``erasure``: CPU of a durable Encrypt with ``full``, with and without overwriting what is deleted;

CPU is the process's, on the stream without gRPC, 64 operations a frame, on 64 channels. What is
compared takes turns in each round. ``--json`` prints one object, by name, for other programs.
"""

import argparse
import ast
import asyncio
import gc
import io
import json
import os
import statistics
import sys
import tempfile
import time
import tokenize
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console
from rich.table import Table

import connect_actor
from benchmarks.calls import count_calls
from benchmarks.in_process import Channel, InProcess, Stream, encrypts, in_process, require_answered
from benchmarks.rounds import require
from connect_actor.client import ConnectClient, ExchangeStream, Identity
from connect_actor.network.connections import http_get
from connect_actor.persistence.contract import Journal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.sessions import now
from connect_loadgen.service.process import ServiceOptions, ServiceProcess

__all__ = ["FIGURES", "code_lines", "copies", "decrypt", "erasure", "main"]

Figures = dict[str, float]

_OPERATIONS = 64
_MESSAGE = bytes(64)
_FRAMES = 32
_ROUNDS = 7
_PATIENCE = 60.0
_WINDOW = 16
_SIZES = (1_024, 16_384, 65_536)
# Of 64 KiB they fit into one frame.
_SIZED_OPERATIONS = 16
_SIZED_FRAMES = 8
_GENERATED = ("_pb2.py", "_pb2_grpc.py")


def calls() -> Figures:
    """Count one Encrypt on the stream."""
    loop, journal = count_calls(_OPERATIONS, _OPERATIONS)
    return {
        "python_calls": loop.calls.total() / _OPERATIONS,
        "files": float(len(loop.files(_OPERATIONS))),
        "moves": loop.moves / _OPERATIONS,
        "journal_python_calls": journal.calls.total() / _OPERATIONS,
    }


def lines() -> Figures:
    """Count the service's code lines."""
    package = Path(connect_actor.__file__).parent
    sources = [path for path in package.rglob("*.py") if not path.name.endswith(_GENERATED)]
    return {"service": float(sum(code_lines(path.read_text()) for path in sources))}


def code_lines(source: str) -> int:
    """Return the lines that are neither blank, comment nor docstring."""
    idle = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in idle:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            # A string by itself is documentation, of what is before it or around it.
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                found.difference_update(range(first, last + 1))
    return len(found)


# --- Copies of a payload --------------------------------------------------------------------------


def copies() -> Figures:
    """Return the slope of allocated bytes over payload size, of Encrypts on a stream over gRPC."""
    allocated = asyncio.run(_allocated_by_size())
    # The intercept would hold what the scrapes allocate, too.
    slope, _ = statistics.linear_regression(list(allocated), list(allocated.values()))
    return {"per_payload_byte": slope}


async def _allocated_by_size() -> dict[int, float]:
    """Return the bytes that the service allocates for a message, by the size of its payload."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        options = ServiceOptions("differential", "sqlite", Path(directory))
        async with (
            ServiceProcess(options, _PATIENCE) as service,
            ConnectClient(service.listen) as client,
            ExchangeStream(client.stub) as stream,
        ):
            channel = await client.establish(Identity.generate(os.urandom))
            for size in _SIZES:
                request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=bytes(size))
                frame = [wire.Operation(encrypt=request) for _ in range(_SIZED_OPERATIONS)]
                require_answered(await stream.call(frame), "encrypt")
                before = _allocated(service.metrics)
                for _ in range(_SIZED_FRAMES):
                    require_answered(await stream.call(frame), "encrypt")
                grown = _allocated(service.metrics) - before
                found[size] = grown / (_SIZED_FRAMES * _SIZED_OPERATIONS)
    return found


def _allocated(metrics: str) -> float:
    _, body = http_get(metrics, "/metrics", _PATIENCE)
    total = sum(
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == "connect_allocated_bytes_total"
    )
    # Without the counting hook there is no such metric.
    require(total > 0)
    return total


# --- CPU in turns ---------------------------------------------------------------------------------

_Serve = Callable[[], float]
"""Serves the frames of a round and returns the CPU of an operation, µs."""


def _in_turn(sides: Mapping[str, _Serve], rounds: int) -> dict[str, list[float]]:
    """Measure each side once a round, in alternating order; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            gc.collect()
            found[name].append(sides[name]())
    return {name: values[1:] for name, values in found.items()}


def _serve(stream: Stream, frames: Sequence[bytes], outcome: str) -> float:
    begun = time.process_time()
    results = stream.exchange(frames, len(frames) * _OPERATIONS)
    seconds = time.process_time() - begun
    require_answered(results, outcome)
    return seconds / len(results) * 1e6


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def decrypt(rounds: int = _ROUNDS, frames: int = _FRAMES) -> Figures:
    """Measure Decrypts with and without a redelivery window beside Encrypts."""
    with ExitStack() as stack:
        sides: dict[str, _Serve] = {}
        for window in (0, _WINDOW):
            service = stack.enter_context(in_process(redelivery_window=window))
            channels = service.establish(_OPERATIONS)
            stream = stack.enter_context(service.open_stream())
            sides[f"decrypt_window_{window}"] = partial(_decrypts, stream, channels, frames)
            if not window:
                frame = encrypts(channels, _OPERATIONS, _MESSAGE)
                sides["encrypt"] = partial(_serve, stream, [frame] * frames, "encrypt")
        found = _in_turn(sides, rounds)
    plain, windowed = found["decrypt_window_0"], found[f"decrypt_window_{_WINDOW}"]
    return {
        **{f"{name}_us": statistics.median(values) for name, values in found.items()},
        "decrypt_to_encrypt": _ratio(plain, found["encrypt"]),
        "window_to_none": _ratio(windowed, plain),
    }


def _decrypts(stream: Stream, channels: Sequence[Channel], frames: int) -> float:
    made = []
    for _ in range(frames):
        frame = wire.OperationFrame()
        for number, channel in enumerate(channels):
            operation = frame.operations.add(operation_id=number + 1)
            operation.decrypt.connect_id = channel.connect_id
            sealed = channel.peer.encrypt(_MESSAGE, now=now(), random=os.urandom)[0]
            payload_to_wire(sealed, operation.decrypt.payload)
        made.append(frame.SerializeToString())
    return _serve(stream, made, "decrypt")


def erasure(rounds: int = _ROUNDS, frames: int = _FRAMES) -> Figures:
    """Measure ``full`` with and without overwriting what it deletes."""
    with ExitStack() as stack:
        sides: dict[str, _Serve] = {}
        for name, overwrites in (("with", True), ("without", False)):
            service = stack.enter_context(in_process("full"))
            frame = encrypts(service.establish(_OPERATIONS), _OPERATIONS, _MESSAGE)
            stream = stack.enter_context(service.open_stream())
            sides[name] = partial(_overwriting, service, stream, [frame] * frames, overwrites)
        found = _in_turn(sides, rounds)
    return {
        **{f"{name}_us": statistics.median(values) for name, values in found.items()},
        "share_of_cpu": 1 - _ratio(found["without"], found["with"]),
    }


def _overwriting(
    service: InProcess,
    stream: Stream,
    frames: Sequence[bytes],
    overwrites: bool,  # noqa: FBT001 - what partial gives it
) -> float:
    def switch(journal: Journal) -> None:
        # The journal has no such option, and must not: only here is it of use.
        if not isinstance(journal, SqliteJournal):
            raise TypeError(journal)
        state = "ON" if overwrites else "OFF"
        journal._usable().connection.execute(f"PRAGMA secure_delete = {state}")  # noqa: SLF001

    spent = 0.0
    for frame in frames:
        # Cleaning turns it on again.
        service.run(service.committer.perform(switch))
        spent += _serve(stream, [frame], "encrypt")
    return spent / len(frames)


# --- The table ------------------------------------------------------------------------------------

FIGURES: Final[Mapping[str, Callable[[], Figures]]] = {
    "calls": calls,
    "lines": lines,
    "copies": copies,
    "decrypt": decrypt,
    "erasure": erasure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is named, or everything, and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in FIGURES]:
        parser.error(f"no figures are called {', '.join(unknown)}: choose of {', '.join(FIGURES)}")
    found = {name: FIGURES[name]() for name in given.names or FIGURES}
    if given.json:
        json.dump(found, sys.stdout)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("figure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, figures in found.items():
        for figure, value in figures.items():
            table.add_row(f"{name}: {figure}", f"{value:,.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
