"""What a crash run leaves behind: tables on the terminal, the result as JSON."""

from collections.abc import Callable, Iterator

from connect_loadgen.crash.results import CrashResult, StrategyFigures
from connect_loadgen.experiment.numbers import count
from connect_loadgen.report.blocks import Block, Bullets, Cell, Column, Prose, Table, Tone

__all__ = ["crash_blocks"]

# More would hide the first ones; all that were kept are in the file.
_SHOWN_FAULTS = 20


def crash_blocks(result: CrashResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    yield _table("Kills, by what the service was doing", result, _kills)
    yield _table("What the ledger holds", result, _holdings)
    yield _table("Operations", result, _operations)
    for figures in result.strategies:
        if figures.faults:
            yield Bullets(tuple(_faults(figures)), is_alarm=True)
    if not (result.is_wrong or result.notices):
        yield Prose(
            "No fault: nothing acknowledged was lost, no place on a chain and no nonce bore two"
            " messages, every channel goes on talking, nothing hung.",
            is_lead=True,
        )


def _table(
    title: str,
    result: CrashResult,
    rows: Callable[[StrategyFigures], Iterator[tuple[str, int]]],
) -> Table:
    """Return a table with a row for each figure and a column for each strategy."""
    columns = [dict(rows(figures)) for figures in result.strategies]
    names = dict.fromkeys(name for column in columns for name in column)
    return Table(
        title=title,
        columns=(
            Column("", is_text=True),
            *(Column(figures.strategy) for figures in result.strategies),
        ),
        rows=tuple(
            (Cell(name), *(_cell(name, column.get(name, 0)) for column in columns))
            for name in names
        ),
    )


def _cell(name: str, value: int) -> Cell:
    is_bad = name == "faults" and value > 0
    return Cell(count(value), sort_by=value, tone=Tone.WORSE if is_bad else Tone.NEUTRAL)


def _kills(figures: StrategyFigures) -> Iterator[tuple[str, int]]:
    yield "kills", figures.total_kills
    yield from figures.kills.items()
    for name, kills in figures.kills_with_in_flight.items():
        yield f"with {name} in flight", kills
    yield "lives in which every channel was proved", figures.lives_proved
    yield "stopped in order before the kill was due", figures.ended_before_the_kill


def _holdings(figures: StrategyFigures) -> Iterator[tuple[str, int]]:
    yield "faults", sum(figures.faults.values())
    yield "messages seen, all different", figures.messages
    yield "acknowledged, sent again, refused as replays", figures.replays_refused
    yield "acknowledged, sent again, redelivered", figures.redelivered
    yield "without answer, sent again, refused as replays", figures.undecided_refused
    yield "channels established", figures.channels
    yield "channels closed", figures.closed
    yield "channels open at the end, all proved", figures.proved_at_the_end
    for name, value in figures.service_work.items():
        yield f"{name} of the service, at least", value


def _operations(figures: StrategyFigures) -> Iterator[tuple[str, int]]:
    for name, ends in figures.operations.items():
        for end, operations in ends.items():
            yield f"{name}, {end}", operations


def _faults(figures: StrategyFigures) -> Iterator[str]:
    for kind, faults in figures.faults.items():
        yield f"{figures.strategy}: {count(faults)} x {kind}"
    for record in figures.fault_records[:_SHOWN_FAULTS]:
        channel = "" if record.connect_id is None else f", channel {record.connect_id}"
        yield f"life {record.life}{channel}: {record.kind}: {record.text}"
