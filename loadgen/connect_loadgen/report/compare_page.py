"""A comparison as a page."""

from collections.abc import Iterable

from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.experiment.figures import FIGURES, Figure
from connect_loadgen.experiment.numbers import count, figure, share
from connect_loadgen.experiment.results import CompareResult, Round, VariantFigures
from connect_loadgen.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Page,
    Prose,
    Section,
    Table,
    missing,
)
from connect_loadgen.report.compare_tables import (
    HEADLINES,
    how_to_read,
    ratio_table,
    variant_table,
    why_missing,
)
from connect_loadgen.report.findings import (
    FIGURE,
    answer,
    chance_of_one_side,
    nothing_worse,
    what_got_worse,
)
from connect_loadgen.report.method import (
    NO_WINDOW,
    caveats_of_environment,
    caveats_of_loads,
    environment_table,
    measured_from,
    settings_table,
)
from connect_loadgen.report.plots import (
    bytes_plot,
    ratio_plot,
    recovery_plot,
    spectrum_plot,
    throughput_plot,
)

__all__ = ["compare_page"]

# Amounts of a whole run differ with its throughput, so as ratios they say little.
_RATIOS = tuple(
    name
    for name in (*HEADLINES, "file_growth_bytes_per_message", "peak_memory_mb")
    if name not in {"commits", "snapshots"}
)
_BYTES = (
    "record_bytes_per_message",
    "snapshot_bytes_per_message",
    "disk_write_bytes_per_message",
    "file_growth_bytes_per_message",
)
_RECOVERY = ("restart_seconds", "restore_seconds")
_OF_A_ROUND = ("messages_per_second", "p99_ms", "cpu_seconds_per_1000_messages", "restore_seconds")


def compare_page(result: CompareResult) -> Page:
    """Return the page of a comparison."""
    names = [variant.name for variant in result.variants]
    return Page(
        title=f"Persistence strategies compared: {', '.join(names)}",
        subtitle=f"loadgen compare, {result.started_at}, {result.seconds:.0f} s in all",
        sections=tuple(
            Section(anchor, title, tuple(blocks)) for anchor, title, blocks in _sections(result)
        ),
    )


def _sections(result: CompareResult) -> Iterable[tuple[str, str, list[Block]]]:
    yield "question", "Question", [Prose(_question(result))]
    yield "answer", "Answer", [Prose(" ".join(answer(result)), is_lead=True)]
    if result.warnings:
        yield "warnings", "Warnings", [Bullets(tuple(result.warnings), is_alarm=True)]
    yield (
        "summary",
        "Summary",
        [variant_table(result), ratio_table(result), *map(Prose, how_to_read(result))],
    )
    yield "ratios", "Ratios and their spread", [ratio_plot(result, _RATIOS)]
    yield "latency", "Latency", [_latency(result)]
    yield "throughput", "Throughput in each round", [throughput_plot(result), _rounds(result)]
    yield (
        "bytes",
        "Bytes for a message",
        [
            bytes_plot(result, _BYTES),
            variant_table(result, _BYTES, spread=True),
        ],
    )
    yield (
        "recovery",
        "Recovery",
        [
            recovery_plot(result, _RECOVERY),
            variant_table(result, (*_RECOVERY, "restored_channels_per_second"), spread=True),
        ],
    )
    yield "worse", "What got worse", _worse(result)
    yield "method", "How it was measured", _method(result)
    yield "caveats", "Caveats", [Bullets(tuple(_caveats(result)))]


def _question(result: CompareResult) -> str:
    settings = result.settings
    durable = [variant.name for variant in result.variants if variant.journal != "memory"]
    return (
        f"What does it cost to persist the session of a channel with each message, with the"
        f" strategies {', '.join(durable)}, under the same load on {settings['channels']} channels"
        f" ({_loads(result)[0].model}, {settings['transport']} transport)?"
    )


def _latency(result: CompareResult) -> Block:
    latencies = {
        variant.name: variant.summary.latency_all_rounds
        for variant in result.variants
        if variant.summary.latency_all_rounds is not None
    }
    return spectrum_plot(
        "latency",
        "Latency of all operations of all rounds",
        latencies,
        measured_from(_loads(result)[0]),
    )


def _rounds(result: CompareResult) -> Table:
    ran = sorted(
        ((round_, variant) for variant in result.variants for round_ in variant.rounds),
        key=lambda item: (item[0].number, item[0].position),
    )
    figures = [FIGURE[name] for name in _OF_A_ROUND]
    return Table(
        title="Every run, in the order in which they ran",
        columns=(
            Column("Round"),
            Column("Place"),
            Column("Variant", is_text=True),
            *(Column(item.title, item.unit, item.meaning) for item in figures),
            Column("Operations", "right"),
            Column("Generator", "share of a core"),
        ),
        rows=tuple(
            (
                Cell(count(round_.number), round_.number),
                Cell(count(round_.position), round_.position),
                Cell(variant.name),
                *(_of_round(round_, variant, item) for item in figures),
                _right(round_),
                Cell(share(round_.load.generator.cpu_share), round_.load.generator.cpu_share),
            )
            for round_, variant in ran
        ),
    )


def _of_round(round_: Round, variant: VariantFigures, item: Figure) -> Cell:
    value = item.value(round_)
    return missing(why_missing(variant, item)) if value is None else Cell(figure(value), value)


def _right(round_: Round) -> Cell:
    load = round_.load
    right = load.operations_finished - load.verification_failures - sum(load.errors.values())
    return Cell(count(right), right)


def _worse(result: CompareResult) -> list[Block]:
    worse = what_got_worse(result)
    if worse:
        return [Bullets(tuple(worse))]
    return [Prose(nothing_worse(result))]


def _method(result: CompareResult) -> list[Block]:
    order: dict[int, list[tuple[int, str]]] = {}
    for variant in result.variants:
        for round_ in variant.rounds:
            order.setdefault(round_.number, []).append((round_.position, variant.name))
    return [
        Prose(
            "Each run has a service process, a journal and channels of its own. It is warmed up,"
            " measured, killed with SIGKILL (memory: stopped), started again on the same data, and"
            " every channel is restored and must carry a message each way. A round runs each"
            f" variant once, in an order drawn from seed {result.settings['seed']}. The generator"
            " is the peer of every channel and compares every byte."
        ),
        Prose(NO_WINDOW),
        Bullets(
            tuple(
                f"Round {number}: {', '.join(name for _, name in sorted(places))}"
                for number, places in sorted(order.items())
            )
        ),
        Table(
            title="What the figures mean",
            columns=(
                Column("Figure", is_text=True),
                Column("Unit", is_text=True),
                Column("Meaning", is_text=True),
            ),
            rows=tuple((Cell(f.title), Cell(f.unit), Cell(f.meaning)) for f in FIGURES),
        ),
        settings_table(result.settings),
        environment_table(result.environment),
    ]


def _caveats(result: CompareResult) -> list[str]:
    rounds = len(result.variants[0].rounds)
    chance = share(chance_of_one_side(rounds))
    return [
        (
            f"{_rounds_in_words(rounds)}: a figure without any real difference still falls on one"
            f" side of 1 every time with a chance of {chance}, and there are"
            f" {len(_RATIOS)} figures for each strategy."
        ),
        *caveats_of_loads(_loads(result), result.environment),
        *caveats_of_environment(result.environment),
    ]


def _rounds_in_words(rounds: int) -> str:
    return "One round shows no spread" if rounds == 1 else f"{rounds} rounds are few"


def _loads(result: CompareResult) -> list[LoadFigures]:
    return [round_.load for variant in result.variants for round_ in variant.rounds]
