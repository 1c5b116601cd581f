"""``python -m benchmarks.ladder REV [REV ...]``: what each step of the code did for its speed.

Several revisions of the service take the same load in one run. Each has a checkout and a data
directory of its own; the generator is always that of the current tree. A round runs each revision
once, and the next begins with another, so that none always profits from its place. Ratios are taken
within a round.

A step is written REV, REV=label, or with flags of serve behind: "HEAD=cache off --cache=false". So
one revision can be two steps, to measure a switch on and off.

The load is a closed loop that keeps the service saturated: its p99 is latency under saturation,
which mostly says how long the line is. With --paced all steps then take the same rate in an open
loop, 70 % of what the first one managed, where p99 counts from when an operation was due.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkouts import checked_out, find_revision, package_of, python_of, require_own
from benchmarks.ladder_table import PACED, PACED_SHARE, LadderDetail, StepTold, markdown_of
from connect_actor.process.program import run_program
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.numbers import spread_of
from connect_loadgen.experiment.results import Result, Side
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.experiments.compare import (
    CompareSettings,
    faults_of,
    warnings_of,
    withheld_of,
)
from connect_loadgen.probes.trial import Variant, trial_probe
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.runner import Command, Render, run_command
from connect_loadgen.settings.load import ConfigurationError, LoadSettings, load_settings

__all__ = ["Step", "main", "parse_steps", "rotated"]

_WORKLOADS: Mapping[str, Sequence[str]] = {
    "mixed": (),
    "encrypt": ("--decrypt-weight=0",),
    "decrypt": ("--encrypt-weight=0",),
}

# Of the load, handed on as they are; with a default where it is not loadgen's.
_OF_LOAD: Mapping[str, object] = {
    "channels": 1000,
    "transport": None,
    "channel_skew": None,
    "payload_bytes": None,
    "frame_operations": None,
    "concurrency": None,
    "warm_up_seconds": None,
}

# Settings of a comparison that nothing here reads.
_NOT_OF_LADDER = {"config", "quick", "dry_run", "output", "service_command"}


@dataclass(frozen=True, slots=True)
class Step:
    """One way to run one revision."""

    label: str
    commit: str
    flags: tuple[str, ...]
    """Of ``serve``."""


def parse_steps(texts: Sequence[str]) -> list[Step]:
    """Read steps as they are written; one without a label is called as its commit and its flags.

    Raises:
        ConfigurationError: git knows no such revision, flags are badly quoted, or two steps would
            have one label.
    """
    steps: dict[str, Step] = {}
    for text in texts:
        name, dashes, rest = text.partition(" --")
        name, _, label = name.partition("=")
        revision = find_revision(name.strip())
        flags = _words(dashes + rest)
        label = label.strip() or " ".join((revision.subject, *flags))
        if label in steps:
            raise ConfigurationError(f"two steps are called {label!r}: write {name}=LABEL")
        steps[label] = Step(label, revision.commit, flags)
    return list(steps.values())


def _words(flags: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(flags))
    except ValueError as error:
        raise ConfigurationError(f"{flags.strip()}: {error}") from None


def rotated(probes: Sequence[Probe], rounds: int) -> list[list[Probe]]:
    """Return each round's order: that of the round before, begun one later."""
    starts = (number % len(probes) for number in range(rounds))
    return [[*probes[start:], *probes[:start]] for start in starts]


async def _climb(asked: "_Asked", progress: CommandProgress) -> Result[LadderDetail]:
    arguments, settings, steps = asked.arguments, asked.settings, asked.steps
    conduct, turns = Conduct(settings), Turns(settings.seed, progress)
    serve = _words(arguments.serve)
    progress.step("checking the revisions out")
    with checked_out([step.commit for step in steps]) as trees:
        for tree in trees.values():
            require_own(python_of(tree), tree)
        variants = [
            Variant(
                step.label,
                "differential",
                command=(
                    *python_of(trees[step.commit]),
                    "-m",
                    f"{package_of(trees[step.commit])}.cli",
                ),
                flags=serve + step.flags,
            )
            for step in steps
        ]
        await _measure(turns, "", variants, settings)
        if not turns.sides:
            raise Ended(ending().reason)
        rate = None
        if arguments.paced:
            rate = PACED_SHARE * _throughput(turns.sides[steps[0].label])
            await _measure(turns, PACED, variants, settings.model_copy(update={"rate": str(rate)}))
    result = conduct.result(
        Path(tempfile.gettempdir()),
        sides=turns.sides,
        left_out=turns.left_out,
        warnings=warnings_of(turns.sides),
        faults=faults_of(turns.sides),
        withheld=withheld_of(turns.sides),
        detail=LadderDetail(
            paced_rate=rate,
            steps=[
                StepTold(label=step.label, commit=step.commit, flags=list(step.flags))
                for step in steps
            ],
        ),
    )
    told = settings.model_dump(mode="json", exclude=_NOT_OF_LADDER)
    return result.model_copy(update={"command": "ladder", "settings": {**told, "serve": serve}})


async def _measure(
    turns: Turns, prefix: str, variants: Sequence[Variant], settings: CompareSettings
) -> None:
    probes = [
        trial_probe(f"{prefix}{each.name}", each, settings, recovers=False) for each in variants
    ]
    orders = rotated(probes, settings.rounds)
    await turns.take(prefix.strip(": "), probes, settings.rounds, orders)


def _throughput(side: Side) -> float:
    median = spread_of([each.figures["messages_per_second"] for each in side.valid])
    # Without an answer the warnings say why, and any rate will do.
    return 1.0 if median is None else max(median.median, 1.0)


# --- The command ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("steps", nargs="+", metavar="STEP")
    parser.add_argument("--rounds", default="5", metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--seconds", default="5", metavar="S", help="measured in each trial; default: %(default)s"
    )
    parser.add_argument("--workload", choices=_WORKLOADS, default="mixed")
    for name, default in _OF_LOAD.items():
        field = LoadSettings.model_fields[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=str(field.default if default is None else default),
            metavar="X",
            help=f"{field.description}; default: %(default)s",
        )
    parser.add_argument(
        "--serve", default="", metavar="FLAGS", help="of serve, for all: --serve='--a=1 --b=2'"
    )
    parser.add_argument(
        "--paced",
        action="store_true",
        help="measure at a fixed rate, too, in as much time again",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the result as JSON")
    return parser


def _settings(arguments: argparse.Namespace) -> CompareSettings:
    flags = [
        f"--rounds={arguments.rounds}",
        f"--duration-seconds={arguments.seconds}",
        *_WORKLOADS[arguments.workload],
        *(f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in _OF_LOAD),
    ]
    settings = load_settings(CompareSettings, flags)
    if settings.rate is not None:
        raise ConfigurationError("LOADGEN_RATE: the ladder sets the rate itself, unset it")
    return settings


@dataclass(frozen=True, slots=True)
class _Asked:
    arguments: argparse.Namespace
    settings: CompareSettings
    steps: Sequence[Step]


def _read(flags: Sequence[str]) -> _Asked:
    arguments = _parser().parse_args(flags)
    return _Asked(arguments, _settings(arguments), parse_steps(arguments.steps))


def _files(asked: _Asked) -> Mapping[Path, Render[Result[LadderDetail]]]:
    output = asked.arguments.output
    return {} if output is None else {output: lambda result: result.model_dump_json(indent=2)}


def _markdown(result: Result[LadderDetail]) -> Sequence[str]:
    return markdown_of(result).splitlines()


_LADDER = Command(_read, _climb, _markdown, _files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, one of loadgen's."""
    if arguments is None:
        return run_program("ladder", lambda: run_command("loadgen ladder", _LADDER, sys.argv[1:]))
    return run_command("loadgen ladder", _LADDER, arguments)


if __name__ == "__main__":
    sys.exit(main())
