"""How a result was made, and what to hold against it, by rule on its settings and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.experiment.numbers import share
from connect_loadgen.experiment.results import Environment
from connect_loadgen.report.blocks import Bullets, Cell, Column, Prose, Section, Table, missing

__all__ = [
    "NO_WINDOW",
    "caveats_of_environment",
    "caveats_of_loads",
    "environment_table",
    "measured_from",
    "method_section",
    "settings_table",
]

_FACTS = (Column("What", is_text=True), Column("Value", is_text=True))

NO_WINDOW = (
    "The service kept no answers to give again (redelivery_window 0), since the audited server has"
    " no such window."
)
"""What trials fix for the service, whatever its default is."""

# Shorter than this, start-up effects and one slow sync weigh on the figures.
_SHORT_SECONDS = 10

# Below this, fewer than ten operations lie beyond p99.9.
_ENOUGH_FOR_P99_9 = 10_000

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def environment_table(environment: Environment) -> Table:
    """Return the machine, the versions and the revision."""
    revision = environment.git_revision
    dirty = " with uncommitted changes" if environment.git_dirty else ""
    facts: dict[str, str | None] = {
        "Git revision": None if revision is None else f"{revision}{dirty}",
        "Machine": f"{environment.cpus} CPUs, {environment.memory_bytes / 2**30:.1f} GiB memory",
        "CPU": environment.cpu_model,
        "Platform": environment.platform,
        "File system of the data": environment.filesystem,
        "Python": environment.python,
        **environment.versions,
    }
    return Table(
        title="Machine and versions",
        columns=_FACTS,
        rows=tuple(
            (Cell(name), missing(f"{name}: could not be found out") if text is None else Cell(text))
            for name, text in facts.items()
        ),
    )


def settings_table(settings: Mapping[str, Any]) -> Table:
    """Return every setting that the load ran with."""
    return Table(
        title="Settings",
        columns=_FACTS,
        rows=tuple(
            (Cell(name), missing("settings without a value: not set"))
            if value is None
            else (Cell(name), Cell(_setting(value)))
            for name, value in settings.items()
        ),
    )


def method_section(text: str, settings: Mapping[str, Any], environment: Environment) -> Section:
    """Return how a result was made, in words, and with what and where."""
    return Section(
        "method",
        "How it was measured",
        (
            Prose(text),
            settings_table(settings),
            environment_table(environment),
            Bullets(tuple(caveats_of_environment(environment))),
        ),
    )


def measured_from(load: LoadFigures) -> str:
    """Return what the latencies of a load count from, in words."""
    return "the due time" if load.model == "open loop" else "sending"


def caveats_of_environment(environment: Environment) -> list[str]:
    """Return what the place where it was made takes away from a result."""
    caveats = []
    if environment.git_revision is None:
        caveats.append("The git revision is unknown, so nobody can make this result again.")
    elif environment.git_dirty:
        caveats.append("The code had uncommitted changes; the git revision does not tell it all.")
    if environment.filesystem is None:
        caveats.append("Which file system held the data is unknown.")
    elif environment.filesystem in _IN_MEMORY:
        caveats.append(
            f"The data lay on {environment.filesystem}, in memory: what a commit costs on a disk"
            " does not show."
        )
    else:
        caveats.append(
            f"What a commit costs depends on how fast this disk ({environment.filesystem}) makes"
            " data durable; another disk shifts the ratios."
        )
    return caveats


def caveats_of_loads(loads: Sequence[LoadFigures], environment: Environment) -> list[str]:
    """Return what the way of loading takes away; the generator ran on the service's machine."""
    busiest = max(load.generator.cpu_share for load in loads)
    caveats = [
        (
            f"Generator and service shared {environment.cpus} CPUs; the generator took up to"
            f" {share(busiest)} of one, which a service on a machine of its own would have."
        )
    ]
    if any(load.model == "closed loop" for load in loads):
        caveats.append(
            "The loop was closed: so much was always in flight, so latency is that of a saturated"
            " service and falls as throughput rises. For latency at a load of your choice, set"
            " --rate."
        )
    shortest = min(load.duration_seconds for load in loads)
    if shortest < _SHORT_SECONDS:
        caveats.append(
            f"A run measured {shortest:g} s only; rare pauses may be missed or weigh too much."
        )
    fewest = min(
        (latency.service_time.count for load in loads for latency in load.latency.values()),
        default=0,
    )
    if fewest < _ENOUGH_FOR_P99_9:
        caveats.append(
            f"p99.9 rests on as few as {fewest:,} operations of a kind in a run: that is"
            f" {fewest // 1000} beyond it."
        )
    return caveats


def _setting(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
