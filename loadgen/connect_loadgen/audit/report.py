"""What an audit leaves behind: the verdict table, the shapes of load, the capacity found."""

from collections import Counter
from collections.abc import Iterator

from connect_loadgen.audit.figures import RATIO
from connect_loadgen.audit.results import AuditResult, AuditRow, Measured
from connect_loadgen.compare import BASELINE
from connect_loadgen.experiment.figures import FIGURES, Figure
from connect_loadgen.experiment.numbers import count, figure, ratio_with_spread, with_spread
from connect_loadgen.experiment.results import Ratio, Spread
from connect_loadgen.experiment.verdicts import Verdict
from connect_loadgen.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Page,
    Prose,
    Section,
    Table,
    Tone,
    missing,
)
from connect_loadgen.report.findings import FIGURE, verdict_on
from connect_loadgen.report.findings import Verdict as RatioVerdict
from connect_loadgen.report.method import (
    NO_WINDOW,
    caveats_of_environment,
    environment_table,
    settings_table,
)

__all__ = ["audit_blocks", "audit_page"]

_RATIO_TONE = {RatioVerdict.BETTER: Tone.BETTER, RatioVerdict.WORSE: Tone.WORSE}

# A unit is used from ten of it on.
_PREFIXES = ((1e6, "M"), (1e3, "k"))

# What the shapes are compared by.
_SHAPE_FIGURES = (
    "messages_per_second",
    "cpu_seconds_per_1000_messages",
    "record_bytes_per_message",
    "disk_write_bytes_per_message",
    "restore_seconds",
)


def audit_blocks(result: AuditResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    yield Prose(_lead(result), is_lead=True)
    for subject, rows in _by_subject(result).items():
        yield _claims_table(subject, rows, detailed=False)
    if result.shapes:
        for name in _SHAPE_FIGURES:
            yield _shapes_table(result, name)
        yield from _losses(result)
    yield _capacity_table(result)
    if result.warnings:
        yield Bullets(tuple(result.warnings), is_alarm=True)


def audit_page(result: AuditResult) -> Page:
    """Return the page of an audit: what the terminal shows, and where, how and on what."""
    return Page(
        title="The audit's claims, measured",
        subtitle=f"loadgen audit, {result.started_at}, {result.seconds / 60:.0f} minutes",
        sections=tuple(_sections(result)),
    )


def _sections(result: AuditResult) -> Iterator[Section]:
    yield Section("answer", "Answer", (Prose(_lead(result), is_lead=True),))
    if result.warnings:
        yield Section("warnings", "Warnings", (Bullets(tuple(result.warnings), is_alarm=True),))
    yield Section(
        "claims",
        "Claims",
        tuple(
            _claims_table(subject, rows, detailed=True)
            for subject, rows in _by_subject(result).items()
        ),
    )
    if result.shapes:
        yield Section(
            "shapes",
            "Shapes of load",
            tuple(_shapes_table(result, name) for name in _SHAPE_FIGURES),
        )
        yield Section("losses", "Where differential loses", tuple(_losses(result)))
    yield Section("capacity", "Capacity", (_capacity_table(result),))
    yield Section(
        "method",
        "How it was measured",
        (
            Prose(
                "Verdicts come from these rules alone. A claim holds if the median of the rounds"
                " reaches the claim's weaker end and so does the worst round; partly if the median"
                " gets half-way there, or a round does not; otherwise it does not hold. A size or"
                " rate that is claimed as a range holds if the median lies within it, partly if"
                " within a factor of two of it."
            ),
            Prose(
                f"The paced load was {figure(result.paced_rate)} operations per second,"
                " the same for every strategy."
            ),
            Prose(NO_WINDOW),
            settings_table(result.settings),
            environment_table(result.environment),
        ),
    )
    if caveats := caveats_of_environment(result.environment):
        yield Section("caveats", "Caveats", (Bullets(tuple(caveats)),))


def _by_subject(result: AuditResult) -> dict[str, list[AuditRow]]:
    subjects: dict[str, list[AuditRow]] = {}
    for row in (*result.rows, *result.missed):
        subjects.setdefault(row.subject, []).append(row)
    return subjects


def _lead(result: AuditResult) -> str:
    verdicts = Counter(row.verdict for row in result.rows)
    judged = sum(
        verdicts[verdict.value]
        for verdict in (Verdict.HOLDS, Verdict.PARTLY, Verdict.DOES_NOT_HOLD)
    )
    return (
        f"Of {len(result.rows)} numbers that the audit states, {judged} could be measured:"
        f" {verdicts[Verdict.HOLDS.value]} hold, {verdicts[Verdict.PARTLY.value]} hold partly,"
        f" {verdicts[Verdict.DOES_NOT_HOLD.value]} do not hold."
        + "".join(
            f" {words}: {verdicts[verdict.value]}."
            for verdict, words in (
                (Verdict.NO_VERDICT, "Without a verdict"),
                (Verdict.LEFT_OUT, "Left out"),
            )
            if verdicts[verdict.value]
        )
    )


def _claims_table(title: str, rows: list[AuditRow], *, detailed: bool) -> Table:
    columns = [
        Column("Claim", is_text=True, wraps=True),
        Column("Audit says"),
        Column("Measured", meaning="Median over the rounds, lowest and highest."),
        Column("Verdict", is_text=True),
    ]
    if detailed:
        columns.append(Column("Where it stands, how it was measured", is_text=True, wraps=True))
    return Table(
        title=title,
        columns=tuple(columns),
        rows=tuple(_claim_cells(row, detailed=detailed) for row in rows),
    )


def _claim_cells(row: AuditRow, *, detailed: bool) -> tuple[Cell, ...]:
    measured = row.measured
    cells = [
        Cell(row.text),
        Cell(row.claimed),
        missing(row.remark) if measured is None else _measured_cell(measured),
        Cell(row.verdict),
    ]
    if detailed:
        had = "" if measured is None else f" Measured: {measured.how}; rounds: {measured.rounds}."
        cells.append(Cell(f"{row.place}.{had} {row.remark}".strip()))
    return tuple(cells)


def _measured_cell(measured: Measured) -> Cell:
    spread, unit = measured.spread, measured.unit
    if unit == RATIO:
        return Cell(_change(spread), sort_by=spread.median)
    if unit == "share":
        return Cell(
            f"{spread.median:.1%} [{spread.low:.1%}, {spread.high:.1%}]", sort_by=spread.median
        )
    scale, prefix = next(
        (
            (scale, prefix)
            for scale, prefix in _PREFIXES
            if unit.startswith("B") and spread.median >= 10 * scale
        ),
        (1.0, ""),
    )
    scaled = Spread(median=spread.median / scale, low=spread.low / scale, high=spread.high / scale)
    return Cell(f"{with_spread(scaled)} {prefix}{unit}", sort_by=spread.median)


def _change(spread: Spread) -> str:
    """Write a ratio as the change that it is."""
    median, low, high = (f"{value - 1:+.0%}" for value in (spread.median, spread.low, spread.high))
    return f"{median} [{low}, {high}]"


def _shapes_table(result: AuditResult, name: str) -> Table:
    known = FIGURE[name]
    others = [variant for variant in result.shapes[0].variants if variant != BASELINE]
    rows = []
    for shape in result.shapes:
        summary = shape.variants[BASELINE].figures[name]
        rows.append(
            (
                Cell(shape.axis),
                Cell(shape.value),
                missing(known.absent)
                if summary is None
                else Cell(figure(summary.median), sort_by=summary.median),
                *(_ratio_cell(known, shape.variants[variant].ratios[name]) for variant in others),
            )
        )
    return Table(
        title=f"{known.title}, by shape of load: full, and the others as ratios to it",
        columns=(
            Column("Changed", is_text=True),
            Column("to", is_text=True),
            Column(BASELINE, known.unit, known.meaning),
            *(Column(variant, "times full") for variant in others),
        ),
        rows=tuple(rows),
        keys=2,
    )


def _ratio_cell(known: Figure, value: Ratio | None) -> Cell:
    if value is None:
        return missing("no ratio: a round lacks the figure, or full's is 0")
    verdict = verdict_on(known, value)
    tone = Tone.NEUTRAL if verdict is None else _RATIO_TONE.get(verdict, Tone.NEUTRAL)
    return Cell(ratio_with_spread(value), sort_by=value.median, tone=tone)


def _losses(result: AuditResult) -> Iterator[Block]:
    losses = [
        f"{shape.axis} {shape.value}: {known.title}, {known.unit}, {ratio_with_spread(value)}"
        " times full"
        for shape in result.shapes
        for known in FIGURES
        if (value := shape.variants["differential"].ratios[known.name]) is not None
        and verdict_on(known, value) is RatioVerdict.WORSE
    ]
    if losses:
        yield Prose("Where differential is worse than full in every round:")
        yield Bullets(tuple(losses))
    else:
        yield Prose("Nowhere was differential worse than full in every round.")


def _capacity_table(result: AuditResult) -> Table:
    return Table(
        title="Channels borne within the p99 objective, each search",
        columns=(
            Column("Variant", is_text=True),
            Column("Channels", meaning="The most that kept the objective, search by search."),
            Column("Tried", "loads"),
        ),
        rows=tuple(
            (
                Cell(name),
                Cell(", ".join(count(search.channels) for search in searches)),
                Cell(count(sum(len(search.probes) for search in searches))),
            )
            for name, searches in result.capacity.items()
        ),
    )
