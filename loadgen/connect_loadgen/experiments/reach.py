"""``loadgen reach``: the service measured against its performance targets, row by row.

A group is what takes turns: a row's figure and its peer are of the same group, so of the same
minutes. Targets are those of the project's plan.
"""

import fnmatch
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.model import GENERATOR, Asked, Probe, Quantity, judge
from connect_loadgen.experiment.results import Result, Round, Row, Side, Withheld
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.probes.handshakes import OPERATIONS, handshakes_side, limit_side
from connect_loadgen.probes.idle import memory_side
from connect_loadgen.probes.many_channels import live_side, require_right, restart_side
from connect_loadgen.probes.saturation import echo_side, saturated_side
from connect_loadgen.probes.trial import Variant, run_trial
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.page import NO_WINDOW, Look
from connect_loadgen.settings.load import (
    ConfigurationError,
    LoadSettings,
    QuickSettings,
    differing,
)
from connect_loadgen.settings.types import PayloadSizes, ShellCommand, comma_separated

__all__ = [
    "LOOK",
    "Group",
    "ReachSettings",
    "groups_of",
    "load_probe",
    "parts_of",
    "rows_chosen",
    "run_reach",
]

_DURABLE = Variant("differential", "differential")
_MEMORY = Variant("memory", "differential", journal="memory")
_FULL = Variant("full", "full")

_MESSAGES = "messages/s"
_CPU = "us CPU/message"
# Operations of most rows, enough that a commit does not leave the service without work.
_IN_FLIGHT = 1_024
# Frames in flight: as many operations as the service takes of one stream by default.
_FRAMES = 8
# As loadgen compare has it.
_COMPARED = 512
_FEW_CHANNELS = 100
# As many calls at once as keep a server of one core busy.
_UNARY_CALLS = 64
# A call takes as long as ten messages in frames.
_MESSAGES_A_CALL = 10
# Enough that each of a few workers has some, wherever they land.
_CONNECTIONS = 8
_MOST_LONG_ROUNDS = 3
# What fluctuates of a process's memory, spread over the channels, is no memory of a channel.
_NO_KILOBYTES = 0.1
# As loadgen soak has it.
_SKEW = 1.6


class ReachSettings(QuickSettings):
    """Measure the service against its performance targets, each row beside its peer."""

    command: ClassVar[str] = "reach"
    # Below six minutes on two shared cores.
    quick_values: ClassVar[Mapping[str, object]] = {
        "rounds": 2,
        "messages": 30_000,
        "warm_up_seconds": 0.5,
        "duration_seconds": 2.0,
        "live_channels": 10_000,
        "restored_channels": 2_000,
        "established_channels": 500,
    }

    only: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="parts of names, or whole names with * and ?, comma separated; all without it",
    )
    list: bool = Field(default=False, description="only say which rows there are")
    seed: int = differing("seed", 1)
    rounds: int = Field(
        5, ge=1, le=100, description="turns of each side; where one takes minutes, at most 3"
    )
    channels: int = Field(1_000, ge=1, le=100_000, description="channels of the usual load")
    payload_bytes: PayloadSizes = differing("payload_bytes", "64,1024")
    messages: int = Field(
        80_000, ge=100, le=10_000_000, description="in a turn of one kind; unary: a tenth of it"
    )
    warm_up_seconds: float = differing("warm_up_seconds", 1.5)
    duration_seconds: float = differing("duration_seconds", 4.0)
    live_channels: int = Field(
        100_000, ge=1, le=150_000, description="live channels of the row about many of them"
    )
    restored_channels: int = Field(
        10_000, ge=1, le=100_000, description="channels that a restart has to bring back"
    )
    established_channels: int = Field(
        2_000, ge=1, le=100_000, description="handshakes of the row about them"
    )
    idle_channels: int = Field(
        10_000, ge=100, le=100_000, description="channels whose memory is measured"
    )
    workers: int = Field(2, ge=2, le=64, description="worker processes of the row about them")
    timeout_seconds: float = differing("timeout_seconds", 60.0)
    service_command: ShellCommand = differing("service_command", None)

    def load(self, **different: object) -> LoadSettings:
        """Return a load of encrypts in a closed loop, as these settings have it.

        Neither environment nor file is read again: what is for another command says nothing here.

        Args:
            different: settings that differ from these and from the defaults of a load.
        """
        told: dict[str, Any] = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name in LoadSettings.model_fields and name not in {"config", "output"}
        }
        told |= {"decrypt_weight": 0.0, "concurrency": _IN_FLIGHT, **different}
        return LoadSettings.model_construct(**told)


# --- The table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose sides take turns."""

    name: str
    probes: Sequence[Probe]
    rows: Sequence[Asked]
    most_rounds: int | None = None
    """Fewer rounds than the settings ask for, where a side takes minutes."""

    def needed_by(self, rows: Sequence[Asked]) -> list[Probe]:
        """Return the sides that these of its rows need."""
        names = {side for row in rows for side in row.sides}
        return [probe for probe in self.probes if probe.name in names]


def _row(
    name: str,
    text: str,
    measured: tuple[str, str],
    unit: str,
    how: str,
    bound: Bound | None,
    against: tuple[str, str, str] | None = None,
    beside: Sequence[tuple[str, str, str]] = (),
) -> Asked:
    """Return a row; ``against`` is side, figure and words, ``beside`` sides, figures and words."""
    return Asked(
        name,
        text,
        unit,
        Quantity(*measured),
        None if against is None else Quantity(*against[:2]),
        "" if against is None else against[2],
        bound,
        how=how,
        beside=tuple(Quantity(*each) for each in beside),
    )


def _at_least(low: float) -> Bound:
    return Bound.at_least(low, "ratio")


def _at_most(high: float) -> Bound:
    return Bound.at_most(high, "ratio")


def groups_of(settings: ReachSettings) -> list[Group]:
    """Return all groups, in the order in which they are measured."""
    s, size, messages = settings, settings.payload_bytes, settings.messages
    load, channels = s.load, f"{s.channels:,}"
    on_stream = (
        f"on one stream, {channels} channels alike, {size} B, 64 a frame, {_IN_FLIGHT:,} in flight"
    )
    encrypts = f"encrypts {on_stream}"
    memory = "the memory journal"

    large, alike, by_zipf = 256 * _FRAMES, "channels alike", f"Zipf {_SKEW:g}"
    of_256 = {"frame_operations": 256, "concurrency": large}
    in_256 = (
        f"encrypts on one stream, {channels} channels, {size} B, 256 a frame, {large:,} in flight"
    )
    decrypts = {"encrypt_weight": 0.0, "decrypt_weight": 1.0}

    calls = load(transport="unary", concurrency=_UNARY_CALLS)
    unary = (
        f"encrypts, a call each, one connection, {channels} channels, {size} B,"
        f" {_UNARY_CALLS} in flight"
    )
    bare = "a bare grpcio aio server, same messages and options"

    mixed = load(decrypt_weight=1.0, concurrency=_COMPARED)
    of_both = (
        f"as many encrypts as decrypts (1 % reordered) on one stream, {channels} channels alike,"
        f" {size} B, 64 a frame, {_COMPARED} in flight"
    )
    handshakes = (
        f"{s.established_channels:,} handshakes at once on one stream, 10 one-time prekeys each"
    )
    limit = "X25519, Ed25519 and HKDF of the service's end alone, on one core"
    many, few = s.live_channels, _FEW_CHANNELS
    idle = f"{s.idle_channels:,} channels recovered from a journal, one process"
    restored = load(channels=s.restored_channels, decrypt_weight=1.0)
    recovered = (
        f"{s.restored_channels:,} channels after as many encrypts as decrypts on each, all restored"
        " at once on one stream"
    )
    shared = load(concurrency=64 * _FRAMES * 2)
    one, several = "1 worker", f"{s.workers} workers"
    on_streams = (
        f"encrypts, {_CONNECTIONS} streams, {channels} channels alike, {size} B, 64 a frame,"
        f" {shared.concurrency:,} in flight"
    )
    cpus = os.cpu_count() or 1
    # The generator takes a core of its own.
    has_cores = cpus > s.workers
    of_cores = "" if has_cores else ", too few for a bound"
    return [
        Group(
            "durability",
            [
                saturated_side("sqlite", _DURABLE, load(), messages),
                saturated_side("memory journal", _MEMORY, load(), messages),
            ],
            [
                _row("durable", "Durable encrypts", ("sqlite", "per_second"), _MESSAGES, encrypts,
                     _at_least(0.7), ("memory journal", "per_second", memory)),
                _row("cpu-64", "Durable encrypt, 64 a frame", ("sqlite", "cpu_us"), _CPU, encrypts,
                     Bound.at_most(25), ("memory journal", "cpu_us", memory),
                     [("sqlite", "messages_per_commit", "{} messages a commit")]),
            ],
        ),
        Group(
            "256 a frame",
            [
                saturated_side(alike, _DURABLE, load(**of_256), messages),
                saturated_side(by_zipf, _DURABLE, load(**of_256, channel_skew=_SKEW), messages),
            ],
            [
                _row(name, f"Durable encrypt, 256 a frame, {choice}", (choice, "cpu_us"), _CPU,
                     f"{in_256}, {choice}", Bound.at_most(15),
                     beside=[(choice, "per_second", "{} messages/s")])
                for name, choice in (("cpu-256", alike), ("cpu-256-skewed", by_zipf))
            ],
        ),
        Group(
            "decrypting",
            [
                saturated_side("encrypts", _DURABLE, load(), messages),
                saturated_side("in order", _DURABLE, load(**decrypts, out_of_order=0.0), messages),
                saturated_side(
                    "reordered", _DURABLE, load(**decrypts, out_of_order=0.05), messages
                ),
            ],
            [
                _row(f"{name}{suffix}", f"{what}, {words}", (side, figure), unit,
                     f"decrypts, {words}, {on_stream}", bound, ("encrypts", figure, "encrypts"))
                for name, side, words in (
                    ("decrypt", "in order", "in order"),
                    ("decrypt-reordered", "reordered", "5 % reordered"),
                )
                for suffix, what, figure, unit, bound in (
                    ("", "Durable decrypts", "per_second", _MESSAGES, _at_least(0.8)),
                    # The same as 0.8 of the rate, where the generator does not set it.
                    ("-cpu", "Durable decrypt", "cpu_us", _CPU, _at_most(1 / 0.8)),
                )
            ],
        ),
        Group(
            "unary",
            [
                saturated_side("unary", _DURABLE, calls, messages // _MESSAGES_A_CALL),
                echo_side("echo", calls, messages // _MESSAGES_A_CALL),
            ],
            [
                _row("unary", "Durable unary encrypts", ("unary", "per_second"), "calls/s", unary,
                     _at_least(0.7), ("echo", "per_second", bare)),
                _row("unary-cpu", "Durable unary encrypt", ("unary", "cpu_us"), "us CPU/call",
                     unary, None, ("echo", "cpu_us", bare)),
            ],
        ),
        Group(
            "strategies",
            [load_probe("differential", _DURABLE, mixed), load_probe("full", _FULL, mixed)],
            [
                _row(f"differential-{name}", f"differential: {what}", ("differential", figure),
                     unit, of_both, bound, ("full", figure, "full"))
                for name, what, figure, unit, bound in (
                    ("rate", "throughput", "messages_per_second", _MESSAGES, _at_least(3)),
                    ("p99", "p99 when saturated", "p99_ms", "ms", _at_most(0.3)),
                    ("cpu", "CPU", "cpu_us", _CPU, _at_most(0.4)),
                    ("allocated", "allocated", "allocated_bytes_per_message", "B/message",
                     _at_most(0.1)),
                )
            ],
        ),
        Group(
            "one channel",
            [
                saturated_side("one channel", _DURABLE, load(channels=1), messages),
                saturated_side("many channels", _DURABLE, load(), messages),
            ],
            [
                _row("one-channel", "One channel alone, pipelined", ("one channel", "per_second"),
                     _MESSAGES,
                     f"encrypts on one stream, {size} B, 64 a frame, {_IN_FLIGHT:,} in flight",
                     Bound.at_least(10_000),
                     ("many channels", "per_second_and_channel", f"one of {channels}' share")),
            ],
        ),
        Group(
            "handshakes",
            [
                handshakes_side("handshakes", _DURABLE, load(channels=s.established_channels)),
                limit_side("limit"),
            ],
            [
                _row("establish", "Channels established", ("handshakes", "per_second"),
                     "channels/s", handshakes, _at_least(0.5), ("limit", "per_second", limit),
                     [("limit", operation, f"{{}} {operation}") for operation in OPERATIONS]),
                _row("establish-cpu", "Channel established", ("handshakes", "cpu_us"),
                     "us CPU/channel", handshakes, _at_most(1 / 0.5), ("limit", "cpu_us", limit)),
            ],
        ),
        Group(
            "many live channels",
            [
                live_side("many", _DURABLE, load(channels=many), messages),
                live_side("few", _DURABLE, load(channels=few), messages),
            ],
            [
                _row("many-live", f"Durable encrypt at {many:,} live channels", ("many", "cpu_us"),
                     _CPU,
                     f"encrypts on one stream, all channels alike, {size} B, 64 a frame,"
                     f" {_IN_FLIGHT:,} in flight; planted in the journal, then brought to life",
                     _at_most(1.5), ("few", "cpu_us", f"{few} live channels")),
            ],
            _MOST_LONG_ROUNDS,
        ),
        Group(
            "memory",
            [memory_side("memory", s.idle_channels)],
            [
                _row("idle-memory", "Memory of an idle live channel", ("memory", "idle_kb"), "KB",
                     idle, Bound.at_most(10)),
                _row("passivated-memory",
                     f"Memory of a passivated channel (up to {_NO_KILOBYTES:g} counts as none)",
                     ("memory", "passivated_kb"), "KB", idle, Bound.at_most(_NO_KILOBYTES)),
            ],
            _MOST_LONG_ROUNDS,
        ),
        Group(
            "recovery",
            [
                restart_side("killed", _DURABLE, restored, killed=True),
                restart_side("stopped", _DURABLE, restored, killed=False),
            ],
            [
                _row(f"recovery-{side}", f"Recovery after {end}", (side, "per_core_second"),
                     "channels/core s", recovered, Bound.at_least(5_000),
                     beside=[
                         (side, "replayed_records", "{} records behind its snapshot in each"),
                         (side, "per_second", "{} channels/s by the clock"),
                         (side, "start_seconds", "ready {} s after the start"),
                     ])
                for side, end in (("killed", "kill -9"), ("stopped", "a stop in order"))
            ],
            _MOST_LONG_ROUNDS,
        ),
        Group(
            "workers",
            [
                saturated_side(
                    name,
                    replace(_DURABLE, flags=(f"--workers={number}",)),
                    shared,
                    messages,
                    _CONNECTIONS,
                )
                for name, number in ((one, 1), (several, s.workers))
            ],
            [
                _row("workers", f"Durable encrypts, {several}", (several, "per_second"), _MESSAGES,
                     f"{on_streams}; {cpus} CPUs{of_cores}",
                     _at_least(0.85 * s.workers) if has_cores else None, (one, "per_second", one)),
                _row("workers-cpu", f"Durable encrypt, {several}", (several, "cpu_us"), _CPU,
                     on_streams, _at_most(1 / 0.85), (one, "cpu_us", one)),
            ],
        ),
    ]  # fmt: skip


def load_probe(name: str, variant: Variant, load: LoadSettings) -> Probe:
    """Return the probe of a load whose peers answer each other; it must be served right."""

    async def measure(progress: Progress) -> Round:
        return _required(await run_trial(variant, load, progress, recovers=False))

    return Probe(name, measure)


def _required(turn: Round) -> Round:
    if turn.load is not None:
        require_right(turn.load.verification_failures, turn.load.errors)
    cpu = turn.figures.get("cpu_seconds_per_1000_messages")
    figures = {**turn.figures, "cpu_us": None if cpu is None else cpu * 1_000}
    return turn.model_copy(update={"figures": figures})


def rows_chosen(settings: ReachSettings) -> list[Asked]:
    """Return the rows that the settings ask for.

    Raises:
        ConfigurationError: there is none for one of the patterns.
    """
    rows = [row for group in groups_of(settings) for row in group.rows]
    for pattern in settings.only:
        if not any(_matches(row.name, pattern) for row in rows):
            raise ConfigurationError(
                f"--only: no row is called like {pattern!r}; --list names them"
            )
    if not settings.only:
        return rows
    return [row for row in rows if any(_matches(row.name, each) for each in settings.only)]


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or pattern in name


# --- The command ----------------------------------------------------------------------------------


async def run_reach(settings: ReachSettings, progress: CommandProgress) -> Result[None]:
    """Measure the rows, group by group.

    Raises:
        Ended: the command ended before a round was complete.
        ConfigurationError: no row is called like that.
    """
    conduct = Conduct(settings)
    turns = Turns(settings.seed, progress, is_tolerant=True)
    names = {row.name for row in rows_chosen(settings)}
    rows: list[Row] = []
    sides: dict[str, Side] = {}
    for group in groups_of(settings):
        chosen = [row for row in group.rows if row.name in names]
        if chosen and ending().reason is None:
            rounds = min(settings.rounds, group.most_rounds or settings.rounds)
            found = await turns.take(group.name, group.needed_by(chosen), rounds)
            if any(side.rounds or side.failure for side in found.values()):
                sides |= {f"{group.name}/{name}": side for name, side in found.items()}
                rows.extend(judge(row, found) for row in chosen)
    if not rows:
        raise Ended(ending().reason)
    parts = {**parts_of(rows), "sides": sides, "left_out": turns.left_out}
    return conduct.result(Path(tempfile.gettempdir()), None, **parts)


def parts_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the result says of these rows."""
    verdicts = Counter(row.verdict for row in rows)
    told = [
        f"{verdicts[each]} {words}"
        for each, words in (
            (Verdict.HOLDS, "hold"),
            (Verdict.DOES_NOT_HOLD, "do not hold"),
            (Verdict.NOT_MEASURED, "not measured"),
            (Verdict.NO_VERDICT, "without a verdict"),
            (Verdict.NO_BOUND, "without a bound"),
        )
        if verdicts[each]
    ]
    undecided = [row.name for row in rows if row.verdict is Verdict.NO_VERDICT]
    why = f"No verdict on {', '.join(undecided)}: {GENERATOR} every round"
    return {
        "answer": [f"Of {len(rows)} rows: {', '.join(told)}."],
        "rows": list(rows),
        "faults": [
            f"{row.name} was not measured: {row.remark}"
            for row in rows
            if row.verdict is Verdict.NOT_MEASURED
        ],
        "withheld": [Withheld.invalid(why)] if undecided else [],
    }


LOOK = Look(
    "Performance targets",
    "A row's figure and what it is compared with took turns, each turn on a fresh service with a"
    " data directory of its own, in an order drawn from the seed; a ratio is taken within its"
    " round. Figures are medians over the rounds with the lowest and the highest, and medians alone"
    " are held to the bounds. CPU is that of the service's processes, user and system, all"
    f" threads. {NO_WINDOW}",
)
