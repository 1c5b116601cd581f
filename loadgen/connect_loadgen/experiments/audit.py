"""``loadgen audit``: every number that the audit states, measured and judged.

The claims are data (``claims.toml``). The parts of an audit are groups of sides that take turns:
what can be measured in one process, the strategies saturated and at an equal rate, the most
channels within an objective, two routers, and shapes of load that change one thing at a time.
"""

import asyncio
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.figures import FIGURE, FIGURES
from connect_loadgen.experiment.model import GENERATOR, Asked, Probe, Quantity, judge
from connect_loadgen.experiment.numbers import count, ratio_with_spread, spread_of
from connect_loadgen.experiment.results import Result, Round, Row, Side, Withheld
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.experiments.compare import (
    BASELINE,
    VARIANTS,
    faults_of,
    rows_of,
    warnings_of,
)
from connect_loadgen.probes.capacity import CHANNELS, Objective, capacity_probe
from connect_loadgen.probes.in_process import Allocated, MicroRound, StrategyFigures, measure_round
from connect_loadgen.probes.trial import Variant, trial_probe
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.blocks import Block, Bullets, Prose, Table
from connect_loadgen.report.page import NO_WINDOW, Look
from connect_loadgen.report.plots import claims_plot
from connect_loadgen.report.tables import plain_table, ratio_cell
from connect_loadgen.settings.load import LoadSettings, QuickSettings, differing

__all__ = [
    "LOOK",
    "QUICK_SECONDS",
    "SHAPES",
    "AuditSettings",
    "Shape",
    "claims",
    "in_process",
    "rows_of_claims",
    "run_audit",
]

QUICK_SECONDS = 280.0
"""What a quick audit may take, whatever the machine; the rest of five minutes is for the start of
the program and the report, which took 13 s on two cores with a load of 9."""

_DURABLE = tuple(variant for variant in VARIANTS if variant.is_durable)
_ROUTERS = (Variant("forwarding", "full"), Variant("awaiting", "full", router="awaiting"))

# Of what full bears in a closed loop: enough to matter, little enough to leave it room.
_PACED_SHARE = 0.6
# Of the same, where the search for the most channels begins.
_CAPACITY_START = 0.5
# A search is many short loads, and shapes are many; these are rounds enough for a spread.
_ROUNDS_OF_SHAPES = 2
_ROUNDS_OF_SEARCH = 3
# An audit's load of 100 messages has two snapshots.
_HUNDRED, _SNAPSHOTS = 100, 2
_PRESSURE_RATE = 10_000
# Without an answer of full the warnings say why, and any rate will do.
_ANY_RATE = 1_000.0

_HOW = {
    "saturated": "closed loop at saturation, whole service",
    "paced": "open loop at the same rate for all, one that full bears, whole service",
    "in process": "within one process, interleaved, ten messages each way",
    "capacity": "open loop, channels added until p99 breaks the objective",
    "routers": "strategy full, closed loop, router awaiting against forwarding",
}


class AuditSettings(QuickSettings, LoadSettings):
    """Measure every number that the audit states, and say which of them hold."""

    command: ClassVar[str] = "audit"
    # Fits into five minutes on two cores that are otherwise idle; what doesn't is left out.
    quick_values: ClassVar[Mapping[str, object]] = {
        "rounds": 2,
        "warm_up_seconds": 0.5,
        "duration_seconds": 2.5,
    }

    rounds: int = Field(3, ge=1, le=100, description="times that each variant is run")
    # Some 250 loads: shorter than those of a comparison, or they would take half a day.
    warm_up_seconds: float = differing("warm_up_seconds", 1.0)
    duration_seconds: float = differing("duration_seconds", 6.0)
    p99_objective_ms: float = Field(
        50, gt=0, description="p99 that the service has to keep while channels are added"
    )
    channel_rate: float = Field(
        10, gt=0, description="messages per second of each channel while channels are added"
    )


# --- Claims ---------------------------------------------------------------------------------------


@cache
def claims() -> tuple[Asked, ...]:
    """Return what the audit claims, in the order of the table."""
    text = files(__package__).joinpath("claims.toml").read_text(encoding="utf-8")
    return tuple(_claim(each) for each in tomllib.loads(text)["claim"])


def _claim(told: Mapping[str, Any]) -> Asked:
    bound = None
    if "less" in told:
        bound = Bound.less(*told["less"])
    elif "more" in told:
        bound = Bound.more(*told["more"])
    elif "between" in told:
        bound = Bound.between(told["between"][0], told["between"][1], told["unit"])
    elif "share" in told:
        bound = Bound.share(told["share"])
    against = told.get("against")
    measured = Quantity(*told.get("measured", ("", "")))
    part = measured.side.partition("/")[0]
    return Asked(
        told["name"],
        told["text"],
        "" if bound is None or bound.of == "ratio" else bound.unit,
        measured,
        None if against is None else Quantity(*against),
        "" if against is None else against[0].partition("/")[2] or against[1].partition(".")[0],
        bound,
        told["subject"],
        f"{told['place']}. {_HOW[part]}" if part else told["place"],
        told.get("remark", "") if bound is not None else f"{told['claimed']}|{told['remark']}",
    )


def rows_of_claims(sides: Mapping[str, Side], *, is_complete: bool = True) -> list[Row]:
    """Return a row for each claim, judged.

    Args:
        sides: what was measured.
        is_complete: whether everything was: else what is missing was left out.
    """
    rows = []
    for claim in claims():
        if claim.bound is not None:
            rows.append(judge(claim, sides, is_complete=is_complete))
            continue
        claimed, _, why = claim.remark.partition("|")
        rows.append(
            Row(
                name=claim.name,
                subject=claim.subject,
                text=claim.text,
                unit="",
                measured=None,
                claimed=claimed,
                verdict=Verdict.NOT_MEASURABLE,
                how=claim.how,
                remark=why,
            )
        )
    return [*rows, *_missed(sides, is_complete=is_complete)]


def _missed(sides: Mapping[str, Side], *, is_complete: bool) -> Iterator[Row]:
    """Yield what the audited server's awaiting router costs, which the audit did not see."""
    for figure, text in (
        ("messages_per_second", "Throughput behind a router that awaits each operation"),
        ("p99_ms", "p99 latency there"),
        ("messages_per_commit", "Messages that share a commit there"),
    ):
        asked = Asked(
            f"router_{figure}",
            text,
            FIGURE[figure].unit,
            Quantity("routers/awaiting", figure),
            Quantity("routers/forwarding", figure),
            "forwarding",
            None,
            "What the audit did not see",
            f"reference/ecliptix-server.md, section 9.1. {_HOW['routers']}",
        )
        yield judge(asked, sides, is_complete=is_complete)


# --- Within one process ---------------------------------------------------------------------------


async def _measure_in_process(progress: Progress) -> Round:
    progress.step("measuring")
    found = measure_round()
    # What ends the command is heeded between two rounds.
    await asyncio.sleep(0)
    return in_process(found)


def in_process(found: MicroRound) -> Round:
    """Return the figures of a round within one process."""
    figures: dict[str, float | None] = {
        "channel_keys_bytes": float(found.channel_keys_bytes),
        "ratchet_bytes": found.ratchet_bytes,
        "changed_bytes": found.changed_bytes,
        "waste_share": 1 - found.changed_bytes / found.state_bytes,
        "payload_blocks": _blocks(found.payload),
        "payload_bytes": _bytes(found.payload),
        "fresh.payload_bytes": _bytes(found.fresh),
        "reused.payload_bytes": _bytes(found.reused),
        "fresh.encryptions": found.fresh_per_second,
        "reused.encryptions": found.reused_per_second,
    }
    for name, strategy in found.strategies.items():
        figures |= {f"{name}.{key}": value for key, value in _of_strategy(strategy).items()}
    return Round(figures=figures)


def _of_strategy(found: StrategyFigures) -> dict[str, float | None]:
    message, record, snapshot = found.message, found.record, found.snapshot
    hundred = None
    if message is not None and snapshot is not None:
        hundred = _HUNDRED * message.bytes + _SNAPSHOTS * snapshot.bytes
    return {
        "message_bytes": _bytes(message),
        "message_blocks": _blocks(message),
        "record_bytes_allocated": _bytes(record),
        "snapshot_bytes_allocated": _bytes(snapshot),
        "record_bytes": found.record_bytes,
        "serialisations": found.records_per_second,
        "serialisation_seconds": 1 / found.records_per_second,
        "hundred_messages_bytes": hundred,
        "persistence_pressure_10000": None if record is None else _PRESSURE_RATE * record.bytes,
    }


def _bytes(allocated: Allocated | None) -> float | None:
    return None if allocated is None else allocated.bytes


def _blocks(allocated: Allocated | None) -> float | None:
    return None if allocated is None else allocated.blocks


# --- Shapes of load -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """A load that differs from the usual one in one respect."""

    axis: str
    """What is changed."""
    value: str
    load: Mapping[str, object] = field(default_factory=dict)
    """Settings that differ from the command's."""
    dh_ratchet_every: int = 10
    snapshot_interval: int = 50
    is_quick: bool = False
    """Whether a quick audit looks at it, too."""

    @property
    def name(self) -> str:
        """Key in the result file."""
        return f"{self.axis}: {self.value}"

    def probes(self, usual: LoadSettings) -> list[Probe]:
        """Return the strategies, as this shape runs them."""
        load, every, interval = dict(self.load), self.dh_ratchet_every, self.snapshot_interval
        return [
            trial_probe(
                f"{self.name}/{each.name}",
                Variant(
                    each.name, each.strategy, dh_ratchet_every=every, snapshot_interval=interval
                ),
                usual.model_copy(update=load),
            )
            for each in _DURABLE
        ]


def _held(value: str, keys: int, *, is_quick: bool = False) -> Shape:
    # Held keys stay held only while the peer's chain is the same, so it never turns there.
    load = {"channels": 100, "skipped_keys": keys}
    return Shape("skipped keys held", value, load, dh_ratchet_every=1_000_000, is_quick=is_quick)


SHAPES = (
    Shape("usual", "as configured", is_quick=True),
    Shape("channels", "1", {"channels": 1}, is_quick=True),
    Shape("channels", "100", {"channels": 100}),
    Shape("channels", "5,000", {"channels": 5_000}),
    Shape("message", "64 B", {"payload_bytes": "64"}),
    Shape("message", "1 KiB", {"payload_bytes": "1024"}),
    Shape("message", "16 KiB", {"payload_bytes": "16384"}, is_quick=True),
    Shape("out of order", "none", {"out_of_order": 0.0}),
    Shape("out of order", "5 %", {"out_of_order": 0.05}),
    Shape("one-time prekeys", "10", {"one_time_prekeys": 10}),
    Shape("one-time prekeys", "100", {"one_time_prekeys": 100}, is_quick=True),
    Shape("snapshot every", "10", snapshot_interval=10, is_quick=True),
    Shape("snapshot every", "50", snapshot_interval=50),
    Shape("snapshot every", "200", snapshot_interval=200),
    Shape("DH ratchet every", "1", dh_ratchet_every=1, is_quick=True),
    Shape("DH ratchet every", "10", dh_ratchet_every=10),
    Shape("DH ratchet every", "100", dh_ratchet_every=100),
    _held("0", 0),
    _held("100", 100),
    _held("1,000", 1_000, is_quick=True),
)


# --- The command ----------------------------------------------------------------------------------


async def run_audit(settings: AuditSettings, progress: CommandProgress) -> Result[None]:
    """Measure everything, the most important first, and judge every claim.

    A quick audit ends when its time is up, as at a signal: with what it has, and what it left out.

    Raises:
        Ended: the command ended before anything was measured.
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    if not settings.quick:
        return await _audit(settings, progress)
    timer = asyncio.get_running_loop().call_later(
        QUICK_SECONDS, ending().end, f"the {QUICK_SECONDS:g} s of a quick audit were over"
    )
    try:
        return await _audit(settings, progress)
    finally:
        timer.cancel()


async def _audit(settings: AuditSettings, progress: CommandProgress) -> Result[None]:
    conduct, turns, rounds = Conduct(settings), Turns(settings.seed, progress), settings.rounds
    await turns.take("within one process", [Probe("in process", _measure_in_process)], rounds)
    await turns.take("saturated", _probes("saturated", VARIANTS, settings, recovers=True), rounds)
    if not turns.sides:
        raise Ended(ending().reason)
    full = turns.sides.get(f"saturated/{BASELINE}")
    borne = spread_of(
        [each.figures["messages_per_second"] for each in (full.valid if full else ())]
    )
    rate = _ANY_RATE if borne is None else max(borne.median, 1.0)
    paced = settings.model_copy(update={"rate": str(rate * _PACED_SHARE)})
    await turns.take("paced", _probes("paced", _DURABLE, paced), rounds)
    searches = _at_most(_ROUNDS_OF_SEARCH, settings)
    start = max(int(rate * _CAPACITY_START / settings.channel_rate), 1)
    objective = Objective(settings.p99_objective_ms, settings.channel_rate)
    await turns.take(
        "capacity",
        [
            capacity_probe(f"capacity/{each.name}", each, settings, objective, start)
            for each in _DURABLE
        ],
        searches,
    )
    await turns.take("routers", _probes("routers", _ROUTERS, settings), searches)
    # What a shape can't show takes nothing from what is measured by then.
    shapes = Turns(settings.seed, progress, is_tolerant=True)
    for shape in SHAPES:
        if shape.is_quick or not settings.quick:
            await shapes.take(
                shape.name, shape.probes(settings), _at_most(_ROUNDS_OF_SHAPES, settings)
            )
    rows = rows_of_claims(turns.sides, is_complete=ending().reason is None)
    sides = turns.sides | shapes.sides
    failures = [side.failure for side in sides.values() if side.failure is not None]
    return conduct.result(
        Path(tempfile.gettempdir()),
        None,
        answer=_answer(rows),
        left_out=[*turns.left_out, *shapes.left_out],
        rows=rows,
        sides=sides,
        warnings=warnings_of(sides),
        faults=[*faults_of(sides), *failures],
        withheld=_withheld(rows),
    )


def _probes(
    part: str, variants: Sequence[Variant], settings: LoadSettings, *, recovers: bool = False
) -> list[Probe]:
    return [
        trial_probe(f"{part}/{each.name}", each, settings, recovers=recovers) for each in variants
    ]


def _at_most(rounds: int, settings: AuditSettings) -> int:
    return 1 if settings.quick else min(rounds, settings.rounds)


def _withheld(rows: Sequence[Row]) -> list[Withheld]:
    undecided = sum(row.verdict is Verdict.NO_VERDICT for row in rows)
    if not undecided:
        return []
    why = f"No verdict on {undecided} rows: {GENERATOR} every round"
    return [Withheld.invalid(why)]


def _answer(rows: Sequence[Row]) -> list[str]:
    verdicts = Counter(row.verdict for row in rows)
    judged = sum(verdicts[each] for each in (Verdict.HOLDS, Verdict.PARTLY, Verdict.DOES_NOT_HOLD))
    told = (
        f"Of {len(claims())} numbers that the audit states, {judged} have a verdict:"
        f" {verdicts[Verdict.HOLDS]} hold, {verdicts[Verdict.PARTLY]} hold partly,"
        f" {verdicts[Verdict.DOES_NOT_HOLD]} do not hold."
    )
    rest = [
        f"{each.value}: {verdicts[each]}"
        for each in (
            Verdict.NOT_MEASURABLE,
            Verdict.NOT_MEASURED,
            Verdict.NO_VERDICT,
            Verdict.LEFT_OUT,
        )
        if verdicts[each]
    ]
    return [told, f"Of the others, {', '.join(rest)}."] if rest else [told]


# --- The report -----------------------------------------------------------------------------------

# What the shapes are compared by.
_SHAPE_FIGURES = (
    "messages_per_second",
    "cpu_seconds_per_1000_messages",
    "record_bytes_per_message",
    "disk_write_bytes_per_message",
    "restore_seconds",
)


def _shapes_of(result: Result[Any]) -> dict[str, dict[str, Row]]:
    """Return the rows of each shape that was measured, by variant and figure."""
    shapes = {}
    for shape in SHAPES:
        sides = {
            each.name: result.sides[name].model_copy(update={"name": each.name})
            for each in _DURABLE
            if (name := f"{shape.name}/{each.name}") in result.sides
        }
        if sides:
            shapes[shape.name] = {row.name: row for row in rows_of(sides)}
    return shapes


def _tables(result: Result[Any]) -> Iterator[Table]:
    for name in _SHAPE_FIGURES if (shapes := _shapes_of(result)) else ():
        known = FIGURE[name]
        yield plain_table(
            f"{known.title} ({known.unit}) by shape of load",
            ("Shape", f"{BASELINE}|", "cached|times full", "differential|times full"),
            (
                (
                    shape,
                    row.measured and row.measured.median
                    if (row := rows[f"{BASELINE}.{name}"])
                    else None,
                    *(
                        ratio_cell(each.ratio, each.verdict, each.remark or "no ratio")
                        for side in ("cached", "differential")
                        for each in [rows[f"{side}.{name}"]]
                    ),
                )
                for shape, rows in shapes.items()
            ),
        )
    yield plain_table(
        "Channels borne within the p99 objective, each search",
        ("Variant", "Channels", "Tried|loads"),
        (
            (
                each.name,
                ", ".join(count(turn.figures[CHANNELS] or 0) for turn in side.rounds),
                int(sum(turn.figures["loads_tried"] or 0 for turn in side.rounds)),
            )
            for each in _DURABLE
            if (side := result.sides.get(f"capacity/{each.name}")) is not None
        ),
    )


def _losses(result: Result[Any]) -> Iterator[Block]:
    losses = [
        f"{shape}: {known.title}, {known.unit}, {ratio_with_spread(row.ratio)} times full"
        for shape, rows in _shapes_of(result).items()
        for known in FIGURES
        if (row := rows[f"differential.{known.name}"]).verdict is Verdict.WORSE and row.ratio
    ]
    yield Prose(
        "Where differential is worse than full in every round:"
        if losses
        else "Nowhere was differential worse than full in every round."
    )
    yield Bullets(tuple(losses))


LOOK = Look(
    "The audit's claims, measured",
    "Verdicts follow from rules on the figures alone. A claim holds if the median of the rounds"
    " reaches the claim's weaker end and so does the worst round; partly if the median gets"
    " half-way there, or a round does not; otherwise it does not hold. A size or rate that is"
    " claimed as a range holds if the median lies within it, partly if within a factor of two."
    f" The paced load was {_PACED_SHARE:.0%} of what full bore, the same for every strategy."
    f" {NO_WINDOW}",
    lambda result: tuple(_tables(result)),
    lambda result: tuple(_losses(result)),
    opening=lambda result: (claims_plot(result.rows),),
)
