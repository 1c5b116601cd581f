"""``python -m benchmarks.peers``: durable Encrypts beside what a user would pick instead.

Every contender does the same work: it encrypts 64 bytes on each of 64 sessions in turn, and returns
a message only when the session's new state is durable. The peer's end opens every message, outside
of what is timed. *One a commit*: the next message begins when the last is durable. *64 a commit*:
64 messages share what the contender lets them share.

- *ours, gRPC*: the service as a process, frames over one stream, four under way; *ours, in
  process*: the same without gRPC, one frame at a time;
- *doubleratchet*, *vodozemac*: the library's stored form replaces the last one in a SQLite table;
- *eventsourcing*: an aggregate a session on the library's SQLite, vodozemac's stored form in each
  event;
- *Pykka*: a ThreadingActor a session with vodozemac in it, which writes each message's state by
  itself: SQLite behind a lock, PostgreSQL on a connection each, Redis with ``appendfsync always``.

SQLite is in WAL mode with ``synchronous=FULL`` throughout. PostgreSQL and Redis are started for the
purpose. They need Debian's ``postgresql`` and ``redis-server`` and, in ``.venv``, ``psycopg
psycopg-binary redis``; a contender that is missing has a row that says so.

CPU is that of all processes involved but the gRPC client's. The contenders take turns in another
order in each round, and ratios are taken within a round. Takes some 15 s a round.
"""

import argparse
import asyncio
import importlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pykka
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.in_process import Channel, encrypts, in_process, require_answered
from benchmarks.protocol import CONTENDERS as RATCHETS
from benchmarks.protocol import Pair
from benchmarks.rounds import better_by, require, spread
from connect_actor.client import Channel as ClientChannel
from connect_actor.client import ConnectClient, ExchangeStream, Identity
from connect_actor.protocol.wire import payload_from_wire
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.sessions import now
from connect_loadgen.service.process import ServiceOptions, ServiceProcess

__all__ = ["CONTENDERS", "Missing", "main", "measure"]

SESSIONS = 64
PLAINTEXT = bytes(range(64))
# Messages a commit, and how many are timed.
MESSAGES: Final[Mapping[int, int]] = {1: 256, 64: 4_096}
_PATIENCE = 60.0
_FRAMES_UNDER_WAY = 4
_WARM_UP_SHARE = 8


class Missing(Exception):  # noqa: N818 - not an error: the row says so
    """A contender can't be had here; the message says what it needs."""


class Pace(NamedTuple):
    """What a message took, in microseconds."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Contender:
    """Who does the work."""

    send: Callable[[int, int], list[Any]]
    """Encrypts so many messages, so many at once, on the sessions in turn; returns them in order,
    all durable."""
    open: Callable[[int, Any], bytes]
    """Opens a message at the peer's end of a session."""
    process: int = 0
    """Another process that does some of the work, with its children."""


# --- Ours -----------------------------------------------------------------------------------------


@contextmanager
def _ours_in_process(_: Path) -> Iterator[Contender]:
    with in_process() as service:
        channels = service.establish(SESSIONS)
        peers = {channel.connect_id: channel.peer for channel in channels}

        def send(messages: int, at_once: int) -> list[Any]:
            sent: list[Any] = []
            with service.open_stream() as stream:
                for first in range(0, messages, at_once):
                    frame = encrypts(_in_turn(channels, first, at_once), at_once, PLAINTEXT)
                    sent += stream.exchange([frame], at_once)
            require_answered(sent, "encrypt")
            return [result.encrypt.payload for result in sent]

        def open_at_peer(session: int, payload: wire.CipherPayload) -> bytes:
            peer = peers[channels[session].connect_id]
            return peer.decrypt(payload_from_wire(payload), now=now())[0]

        yield Contender(send, open_at_peer)


def _in_turn(channels: Sequence[Channel], first: int, count: int) -> list[Channel]:
    return [channels[(first + number) % SESSIONS] for number in range(count)]


@contextmanager
def _ours_over_grpc(directory: Path) -> Iterator[Contender]:
    with asyncio.Runner() as runner, ExitStack() as stack:
        options = ServiceOptions("differential", "sqlite", directory)
        service = ServiceProcess(options, _PATIENCE)
        runner.run(service.__aenter__())
        stack.callback(lambda: runner.run(service.__aexit__(None, None, None)))
        client = ConnectClient(service.listen)
        runner.run(client.__aenter__())
        stack.callback(lambda: runner.run(client.__aexit__(None, None, None)))
        identity = Identity.generate(os.urandom)

        async def establish() -> list[ClientChannel]:
            return [await client.establish(identity) for _ in range(SESSIONS)]

        channels = runner.run(establish())

        async def exchange(messages: int, at_once: int) -> list[Any]:
            frames = [
                [
                    wire.Operation(
                        encrypt=wire.EncryptRequest(
                            connect_id=channels[(first + number) % SESSIONS].connect_id,
                            plaintext=PLAINTEXT,
                        )
                    )
                    for number in range(at_once)
                ]
                for first in range(0, messages, at_once)
            ]
            room = asyncio.Semaphore(_FRAMES_UNDER_WAY if at_once > 1 else 1)

            async def call(frame: Sequence[wire.Operation]) -> list[wire.OperationResult]:
                async with room:
                    return await opened.call(frame)

            async with ExchangeStream(client.stub) as opened:
                answers = await asyncio.gather(*[call(frame) for frame in frames])
            sent = [result for results in answers for result in results]
            require_answered(sent, "encrypt")
            return [result.encrypt.payload for result in sent]

        yield Contender(
            lambda messages, at_once: runner.run(exchange(messages, at_once)),
            lambda session, payload: channels[session].open(payload),
            service.pid,
        )


# --- Libraries on SQLite --------------------------------------------------------------------------


def _sqlite(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "sessions.db", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, state BLOB)")
    return connection


_REPLACE = "INSERT OR REPLACE INTO sessions VALUES (?, ?)"


def _pairs(ratchet: str) -> list[Pair]:
    """Return sessions of a library on which each end has heard of the other."""
    pairs = [RATCHETS[ratchet]() for _ in range(SESSIONS)]
    for first, second in pairs:
        require(first.decrypt(second.encrypt(b"answer")) == b"answer")
    return pairs


def _commits(pairs: Sequence[Pair], commit: Callable[[Sequence[int]], None]) -> Contender:
    """Return who encrypts on the sessions, then commits those that were used, one by one or all."""

    def send(messages: int, at_once: int) -> list[Any]:
        sent = []
        for first in range(0, messages, at_once):
            sessions = [(first + number) % SESSIONS for number in range(at_once)]
            sent += [pairs[session][0].encrypt(PLAINTEXT) for session in sessions]
            commit(sessions)
        return sent

    return Contender(send, lambda session, message: pairs[session][1].decrypt(message))


@contextmanager
def _library_on_sqlite(ratchet: str, directory: Path) -> Iterator[Contender]:
    pairs = _pairs(ratchet)
    with closing(_sqlite(directory)) as connection:

        def commit(sessions: Sequence[int]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            states = [(session, pairs[session][0].state()) for session in sessions]
            connection.executemany(_REPLACE, states)
            connection.execute("COMMIT")

        yield _commits(pairs, commit)


class _Conversation(Aggregate):
    """A session as an aggregate."""

    @event("Started")
    def __init__(self) -> None:
        self.state = ""

    @event("Sent")
    def sent(self, state: str) -> None:
        self.state = state


@contextmanager
def _eventsourcing(directory: Path) -> Iterator[Contender]:
    pairs = _pairs("vodozemac")
    application: Application[Any] = Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(directory / "events.db"),
        }
    )
    conversations = [_Conversation() for _ in range(SESSIONS)]
    application.save(*conversations)

    def commit(sessions: Sequence[int]) -> None:
        for session in sessions:
            conversations[session].sent(pairs[session][0].state().decode())
        application.save(*[conversations[session] for session in sessions])

    yield _commits(pairs, commit)
    application.close()


# --- Pykka's ThreadingActor, each write durable ---------------------------------------------------

_Write = Callable[[int, bytes], object]
"""Returns when a session's state is durable; called on the thread of the session's actor."""


class _Session(pykka.ThreadingActor):
    """A session that persists itself."""

    use_daemon_thread = True

    def __init__(self, number: int, pair: Pair, write: _Write) -> None:
        super().__init__()
        self._number, (self._end, _), self._write = number, pair, write

    def on_receive(self, message: bytes) -> Any:  # noqa: ANN401 - what the library makes of it
        """Encrypt, and answer when the new state is durable."""
        sealed = self._end.encrypt(message)
        self._write(self._number, self._end.state())
        return sealed


@contextmanager
def _actors(write: _Write, process: int = 0) -> Iterator[Contender]:
    pairs = _pairs("vodozemac")
    refs = [_Session.start(number, pair, write) for number, pair in enumerate(pairs)]

    def send(messages: int, at_once: int) -> list[Any]:
        sent: list[Any] = []
        for first in range(0, messages, at_once):
            asked = [
                refs[(first + number) % SESSIONS].ask(PLAINTEXT, block=False)
                for number in range(at_once)
            ]
            sent += [answer.get(timeout=_PATIENCE) for answer in asked]
        return sent

    try:
        yield Contender(send, lambda session, message: pairs[session][1].decrypt(message), process)
    finally:
        for ref in refs:
            ref.stop()


@contextmanager
def _actors_on_sqlite(directory: Path) -> Iterator[Contender]:
    with closing(_sqlite(directory)) as connection:
        lock = threading.Lock()

        def write(session: int, state: bytes) -> None:
            with lock:
                connection.execute(_REPLACE, (session, state))

        with _actors(write) as contender:
            yield contender


def _module(name: str) -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"not measured: pip install {name}") from None


def _program(name: str, package: str) -> str:
    places = [os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Missing(f"not measured: apt install {package}")
    return found


@contextmanager
def _running(command: Sequence[str], user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - a server that we have looked up
        command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _connected(connect: Callable[[], Any], failure: type[Exception]) -> Any:  # noqa: ANN401
    """Return a connection to a server that may still be starting."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return connect()
        except failure:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextmanager
def _actors_on_postgresql(directory: Path) -> Iterator[Contender]:
    psycopg = _module("psycopg")
    initdb, postgres = (_program(name, "postgresql") for name in ("initdb", "postgres"))
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    data, socket = directory / "data", directory / "socket"
    socket.mkdir()
    if user is not None:
        for place in (directory, socket):
            shutil.chown(place, user)
    subprocess.run(  # noqa: S603 - as above
        [initdb, "-A", "trust", "-U", "postgres", "-D", str(data)],
        user=user,
        check=True,
        capture_output=True,
    )
    command = [postgres, "-D", str(data), "-k", str(socket), "-c", "listen_addresses="]
    connections: dict[int, Any] = {}
    with _running(command, user) as server:
        connect = partial(
            psycopg.connect, host=str(socket), user="postgres", dbname="postgres", autocommit=True
        )
        first = _connected(connect, psycopg.OperationalError)
        first.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, state BYTEA)")
        settings = [first.execute(f"SHOW {name}").fetchone()[0] for name in _DURABLE]
        require(settings == ["on", "on"])
        first.close()

        def write(session: int, state: bytes) -> None:
            if session not in connections:
                connections[session] = connect()
            connections[session].execute(
                "INSERT INTO sessions VALUES (%s, %s)"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                (session, state),
                prepare=True,
            )

        with _actors(write, server.pid) as contender:
            yield contender
        for connection in connections.values():
            connection.close()


_DURABLE = ("fsync", "synchronous_commit")


@contextmanager
def _actors_on_redis(directory: Path) -> Iterator[Contender]:
    redis = _module("redis")
    socket = directory / "redis.socket"
    command = [_program("redis-server", "redis-server"), "--port", "0", "--save", ""]
    command += ["--unixsocket", str(socket), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    with _running(command) as server:
        client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
        _connected(client.ping, redis.ConnectionError)
        require(set(client.config_get("appendfsync").values()) == {"always"})
        with _actors(client.set, server.pid) as contender:
            yield contender
        client.close()


# --- The job --------------------------------------------------------------------------------------

_OURS = "ours, gRPC"
CONTENDERS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Contender]]]] = {
    _OURS: _ours_over_grpc,
    "ours, in process": _ours_in_process,
    "doubleratchet, SQLite": partial(_library_on_sqlite, "doubleratchet, GCM"),
    "vodozemac, SQLite": partial(_library_on_sqlite, "vodozemac"),
    "eventsourcing, SQLite": _eventsourcing,
    "Pykka, SQLite": _actors_on_sqlite,
    "Pykka, PostgreSQL": _actors_on_postgresql,
    "Pykka, Redis": _actors_on_redis,
}

Figures = dict[int, Pace]
"""By messages a commit."""


def measure(name: str, messages: Mapping[int, int] = MESSAGES) -> Figures:
    """Let one contender do all of the work.

    Raises:
        Missing: it can't be had here.
        RuntimeError: the peer did not open what was encrypted.
    """
    figures = {}
    with _fresh_directory() as directory, CONTENDERS[name](directory) as contender:
        for at_once, count in messages.items():
            warm_up = max(count // _WARM_UP_SHARE // SESSIONS, 1) * SESSIONS
            _check(contender, contender.send(warm_up, at_once))
            cpu_begun, begun = _cpu(contender, name), time.perf_counter()
            sent = contender.send(count, at_once)
            wall = time.perf_counter() - begun
            cpu = _cpu(contender, name) - cpu_begun
            _check(contender, sent)
            figures[at_once] = Pace(wall / count * 1e6, cpu / count * 1e6)
    return figures


def _cpu(contender: Contender, name: str) -> float:
    total = 0.0 if name == _OURS else time.process_time()
    if contender.process:
        server = psutil.Process(contender.process)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _check(contender: Contender, sent: Sequence[Any]) -> None:
    for number, message in enumerate(sent):
        require(contender.open(number % SESSIONS, message) == PLAINTEXT)


@contextmanager
def _fresh_directory() -> Iterator[Path]:
    # Not in /tmp, which may be memory: there nothing is durable, and all is fast.
    results = Path("results")
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results, ignore_cleanup_errors=True) as directory:
        yield Path(directory).resolve()


def _table(rounds: Sequence[Mapping[str, Figures]], missing: Mapping[str, str]) -> Table:
    title = f"{len(rounds)} rounds: median (lowest to highest)"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for column in (
        "messages a commit",
        "time for each",
        "CPU for each",
        f"rate of {_OURS}\nto its rate",
    ):
        table.add_column(column, justify="left" if column == "messages a commit" else "right")
    for at_once in MESSAGES:
        table.add_section()
        table.add_row(f"{at_once}", style="bold")
        ours = [figures[_OURS][at_once].wall for figures in rounds]
        for name in CONTENDERS:
            if name in missing:
                table.add_row(f"  {name}", missing[name])
                continue
            paces = [figures[name][at_once] for figures in rounds]
            table.add_row(
                f"  {name}",
                spread([pace.wall for pace in paces], "µs"),
                spread([pace.cpu for pace in paces], "µs"),
                "" if name == _OURS else better_by([pace.wall for pace in paces], ours),
            )
    return table


def main() -> None:
    """Run the rounds, and print the table or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s", metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    rounds: list[dict[str, Figures]] = []
    missing: dict[str, str] = {}
    console = Console(stderr=arguments.json)
    with Progress(console=console, transient=True) as progress:
        for _ in progress.track(range(max(arguments.rounds, 1)), description="rounds"):
            figures: dict[str, Figures] = {}
            for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
                if name not in missing:
                    try:
                        figures[name] = measure(name)
                    except Missing as why:
                        missing[name] = str(why)
            rounds.append(figures)
    if arguments.json:
        json.dump({"rounds": [_plain(each) for each in rounds], "missing": missing}, sys.stdout)
    else:
        console.print(_table(rounds, missing))


def _plain(figures: Mapping[str, Figures]) -> dict[str, dict[int, dict[str, float]]]:
    return {
        name: {at_once: pace._asdict() for at_once, pace in paces.items()}
        for name, paces in figures.items()
    }


if __name__ == "__main__":
    main()
