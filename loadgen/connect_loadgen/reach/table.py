"""The table: which rows there are, what each is held to, and what is measured for it.

A group is what takes turns: a row's figure and its peer are of the same group, so of the same
minutes. Goals are those of the project's plan for what is in reach.
"""

import os
from dataclasses import replace

from connect_loadgen.experiment.model import Beside, Group, Quantity, Row
from connect_loadgen.probes.loads import load_side
from connect_loadgen.probes.many_channels import live_side, restart_side
from connect_loadgen.probes.saturation import echo_side, saturated_side
from connect_loadgen.probes.trial import Variant
from connect_loadgen.reach.handshakes import OPERATIONS, handshakes_side, limit_side
from connect_loadgen.reach.idle import memory_side
from connect_loadgen.reach.results import Goal
from connect_loadgen.reach.settings import IN_FLIGHT, ReachSettings
from connect_loadgen.soak.settings import SoakSettings

__all__ = ["groups_of"]

_DURABLE = Variant("differential", "differential")
_MEMORY = Variant("memory", "differential", journal="memory")
_FULL = Variant("full", "full")

_MESSAGES = "messages/s"
_CPU = "us CPU/message"
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
_SKEW = SoakSettings.model_fields["channel_skew"].default


def groups_of(settings: ReachSettings) -> list[Group]:
    """Return all groups, in the order in which they are measured."""
    return [
        _durability(settings),
        _large_frames(settings),
        _decrypting(settings),
        _unary(settings),
        _strategies(settings),
        _one_channel(settings),
        _handshakes(settings),
        _many_live(settings),
        _memory(settings),
        _recovery(settings),
        _workers(settings),
    ]


def _usual(settings: ReachSettings, operations: str = "encrypts") -> str:
    return (
        f"{operations} on one stream, {settings.channels:,} channels alike,"
        f" {settings.payload_bytes} B, 64 a frame, {IN_FLIGHT:,} in flight"
    )


def _durability(settings: ReachSettings) -> Group:
    load = settings.load()
    return Group(
        "durability",
        [
            saturated_side("sqlite", _DURABLE, load, settings.messages),
            saturated_side("memory journal", _MEMORY, load, settings.messages),
        ],
        [
            Row(
                "durable",
                "Durable encrypts",
                Quantity("sqlite", "per_second"),
                _MESSAGES,
                _usual(settings),
                reference=Quantity("memory journal", "per_second"),
                compared_with="the memory journal",
                goal=Goal.ratio_at_least(0.7),
            ),
            Row(
                "cpu-64",
                "Durable encrypt, 64 a frame",
                Quantity("sqlite", "cpu_us"),
                _CPU,
                _usual(settings),
                reference=Quantity("memory journal", "cpu_us"),
                compared_with="the memory journal",
                goal=Goal.at_most(25),
                beside=(Beside(Quantity("sqlite", "messages_per_commit"), "{} messages a commit"),),
            ),
        ],
    )


def _large_frames(settings: ReachSettings) -> Group:
    concurrency = 256 * _FRAMES
    load = settings.load(frame_operations=256, concurrency=concurrency)
    skewed = settings.load(frame_operations=256, concurrency=concurrency, channel_skew=_SKEW)
    usual = (
        f"encrypts on one stream, {settings.channels:,} channels, {settings.payload_bytes} B,"
        f" 256 a frame, {concurrency:,} in flight"
    )

    def row(name: str, choice: str) -> Row:
        return Row(
            name,
            f"Durable encrypt, 256 a frame, {choice}",
            Quantity(choice, "cpu_us"),
            _CPU,
            f"{usual}, {choice}",
            goal=Goal.at_most(15),
            beside=(Beside(Quantity(choice, "per_second"), "{} messages/s"),),
        )

    alike, by_zipf = "channels alike", f"Zipf {_SKEW:g}"
    return Group(
        "256 a frame",
        [
            saturated_side(alike, _DURABLE, load, settings.messages),
            saturated_side(by_zipf, _DURABLE, skewed, settings.messages),
        ],
        [row("cpu-256", alike), row("cpu-256-skewed", by_zipf)],
    )


def _decrypting(settings: ReachSettings) -> Group:
    in_order = settings.load(encrypt_weight=0.0, decrypt_weight=1.0, out_of_order=0.0)
    reordered = settings.load(encrypt_weight=0.0, decrypt_weight=1.0, out_of_order=0.05)
    rows = []
    for name, side, words in (
        ("decrypt", "in order", "in order"),
        ("decrypt-reordered", "reordered", "5 % reordered"),
    ):
        run_with = _usual(settings, f"decrypts, {words},")
        rows += [
            Row(
                name,
                f"Durable decrypts, {words}",
                Quantity(side, "per_second"),
                _MESSAGES,
                run_with,
                reference=Quantity("encrypts", "per_second"),
                compared_with="encrypts",
                goal=Goal.ratio_at_least(0.8),
            ),
            Row(
                f"{name}-cpu",
                f"Durable decrypt, {words}",
                Quantity(side, "cpu_us"),
                _CPU,
                run_with,
                reference=Quantity("encrypts", "cpu_us"),
                compared_with="encrypts",
                # The same as 0.8 of the rate, where the generator does not set it.
                goal=Goal.ratio_at_most(1 / 0.8),
            ),
        ]
    return Group(
        "decrypting",
        [
            saturated_side("encrypts", _DURABLE, settings.load(), settings.messages),
            saturated_side("in order", _DURABLE, in_order, settings.messages),
            saturated_side("reordered", _DURABLE, reordered, settings.messages),
        ],
        rows,
    )


def _unary(settings: ReachSettings) -> Group:
    load = settings.load(transport="unary", concurrency=_UNARY_CALLS)
    calls = settings.messages // _MESSAGES_A_CALL
    run_with = (
        f"encrypts, a call each, one connection, {settings.channels:,} channels,"
        f" {settings.payload_bytes} B, {_UNARY_CALLS} in flight"
    )
    against = "a bare grpcio aio server, same messages and options"
    return Group(
        "unary",
        [
            saturated_side("unary", _DURABLE, load, calls),
            echo_side("echo", load, calls),
        ],
        [
            Row(
                "unary",
                "Durable unary encrypts",
                Quantity("unary", "per_second"),
                "calls/s",
                run_with,
                reference=Quantity("echo", "per_second"),
                compared_with=against,
                goal=Goal.ratio_at_least(0.7),
            ),
            Row(
                "unary-cpu",
                "Durable unary encrypt",
                Quantity("unary", "cpu_us"),
                "us CPU/call",
                run_with,
                reference=Quantity("echo", "cpu_us"),
                compared_with=against,
            ),
        ],
    )


def _strategies(settings: ReachSettings) -> Group:
    load = settings.load(decrypt_weight=1.0, concurrency=_COMPARED)
    run_with = (
        f"as many encrypts as decrypts (1 % reordered) on one stream, {settings.channels:,}"
        f" channels alike, {settings.payload_bytes} B, 64 a frame, {_COMPARED} in flight"
    )
    return Group(
        "strategies",
        [load_side("differential", _DURABLE, load), load_side("full", _FULL, load)],
        [
            Row(
                f"differential-{name}",
                f"differential: {what}",
                Quantity("differential", figure),
                unit,
                run_with,
                reference=Quantity("full", figure),
                compared_with="full",
                goal=goal,
            )
            for name, what, figure, unit, goal in (
                ("rate", "throughput", "per_second", _MESSAGES, Goal.ratio_at_least(3)),
                ("p99", "p99 when saturated", "p99_ms", "ms", Goal.ratio_at_most(0.3)),
                ("cpu", "CPU", "cpu_us", _CPU, Goal.ratio_at_most(0.4)),
                (
                    "allocated",
                    "allocated",
                    "allocated_bytes",
                    "B/message",
                    Goal.ratio_at_most(0.1),
                ),
            )
        ],
    )


def _one_channel(settings: ReachSettings) -> Group:
    return Group(
        "one channel",
        [
            saturated_side("one channel", _DURABLE, settings.load(channels=1), settings.messages),
            saturated_side("many channels", _DURABLE, settings.load(), settings.messages),
        ],
        [
            Row(
                "one-channel",
                "One channel alone, pipelined",
                Quantity("one channel", "per_second"),
                _MESSAGES,
                f"encrypts on one stream, {settings.payload_bytes} B, 64 a frame,"
                f" {IN_FLIGHT:,} in flight",
                reference=Quantity("many channels", "per_second_and_channel"),
                compared_with=f"one of {settings.channels:,} channels' share",
                goal=Goal.at_least(10_000),
            )
        ],
    )


def _handshakes(settings: ReachSettings) -> Group:
    load = settings.load(channels=settings.established_channels)
    run_with = (
        f"{settings.established_channels:,} handshakes at once on one stream, 10 one-time prekeys"
        " in each bundle"
    )
    against = "X25519, Ed25519 and HKDF of the service's end alone, on one core"
    counted = tuple(
        Beside(Quantity("limit", operation), f"{{}} {operation}") for operation in OPERATIONS
    )
    return Group(
        "handshakes",
        [handshakes_side("handshakes", _DURABLE, load), limit_side("limit")],
        [
            Row(
                "establish",
                "Channels established",
                Quantity("handshakes", "per_second"),
                "channels/s",
                run_with,
                reference=Quantity("limit", "per_second"),
                compared_with=against,
                goal=Goal.ratio_at_least(0.5),
                beside=counted,
            ),
            Row(
                "establish-cpu",
                "Channel established",
                Quantity("handshakes", "cpu_us"),
                "us CPU/channel",
                run_with,
                reference=Quantity("limit", "cpu_us"),
                compared_with=against,
                goal=Goal.ratio_at_most(1 / 0.5),
            ),
        ],
    )


def _many_live(settings: ReachSettings) -> Group:
    many, few = settings.live_channels, _FEW_CHANNELS
    return Group(
        "many live channels",
        [
            live_side("many", _DURABLE, settings.load(channels=many), settings.messages),
            live_side("few", _DURABLE, settings.load(channels=few), settings.messages),
        ],
        [
            Row(
                "many-live",
                f"Durable encrypt at {many:,} live channels",
                Quantity("many", "cpu_us"),
                _CPU,
                f"encrypts on one stream, all channels alike, {settings.payload_bytes} B, 64 a"
                f" frame, {IN_FLIGHT:,} in flight; channels planted in the journal, then brought"
                " to life",
                reference=Quantity("few", "cpu_us"),
                compared_with=f"{few} live channels",
                goal=Goal.ratio_at_most(1.5),
            )
        ],
        most_rounds=_MOST_LONG_ROUNDS,
    )


def _memory(settings: ReachSettings) -> Group:
    run_with = f"{settings.idle_channels:,} channels recovered from a journal, one process"

    def row(name: str, what: str, figure: str, bound: float) -> Row:
        return Row(name, what, Quantity("memory", figure), "KB", run_with, goal=Goal.at_most(bound))

    return Group(
        "memory",
        [memory_side("memory", settings.idle_channels)],
        [
            row("idle-memory", "Memory of an idle live channel", "idle_kb", 10),
            row(
                "passivated-memory",
                f"Memory of a passivated channel (up to {_NO_KILOBYTES:g} counts as none)",
                "passivated_kb",
                _NO_KILOBYTES,
            ),
        ],
        most_rounds=_MOST_LONG_ROUNDS,
    )


def _recovery(settings: ReachSettings) -> Group:
    load = settings.load(channels=settings.restored_channels, decrypt_weight=1.0)
    run_with = (
        f"{load.channels:,} channels after as many encrypts as decrypts on each, all restored at"
        " once on one stream"
    )

    def row(name: str, what: str, side: str) -> Row:
        return Row(
            name,
            what,
            Quantity(side, "per_core_second"),
            "channels/core s",
            run_with,
            goal=Goal.at_least(5_000),
            beside=(
                Beside(
                    Quantity(side, "replayed_records"), "{} records behind its snapshot in each"
                ),
                Beside(Quantity(side, "per_second"), "{} channels/s by the clock"),
                Beside(Quantity(side, "start_seconds"), "ready {} s after the start"),
            ),
        )

    return Group(
        "recovery",
        [
            restart_side("killed", _DURABLE, load, killed=True),
            restart_side("stopped", _DURABLE, load, killed=False),
        ],
        [
            row("recovery-killed", "Recovery after kill -9", "killed"),
            row("recovery-stopped", "Recovery after a stop in order", "stopped"),
        ],
        most_rounds=_MOST_LONG_ROUNDS,
    )


def _workers(settings: ReachSettings) -> Group:
    load, count = settings.load(concurrency=64 * _FRAMES * 2), settings.workers
    run_with = (
        f"encrypts, {_CONNECTIONS} streams, {settings.channels:,} channels alike,"
        f" {settings.payload_bytes} B, 64 a frame, {load.concurrency:,} in flight"
    )
    cpus = os.cpu_count() or 1
    # The generator takes a core of its own.
    has_cores = cpus > count
    one, several = "1 worker", f"{count} workers"
    return Group(
        "workers",
        [
            saturated_side(
                name,
                replace(_DURABLE, flags=(f"--workers={number}",)),
                load,
                settings.messages,
                _CONNECTIONS,
            )
            for name, number in ((one, 1), (several, count))
        ],
        [
            Row(
                "workers",
                f"Durable encrypts, {several}",
                Quantity(several, "per_second"),
                _MESSAGES,
                f"{run_with}; {cpus} CPUs{'' if has_cores else ', too few for it to be a goal'}",
                reference=Quantity(one, "per_second"),
                compared_with=one,
                goal=Goal.ratio_at_least(0.85 * count) if has_cores else None,
            ),
            Row(
                "workers-cpu",
                f"Durable encrypt, {several}",
                Quantity(several, "cpu_us"),
                _CPU,
                run_with,
                reference=Quantity(one, "cpu_us"),
                compared_with=one,
                goal=Goal.ratio_at_most(1 / 0.85),
            ),
        ],
    )
