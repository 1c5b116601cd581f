"""The tables of one run, the same for the terminal and the page."""

from connect_loadgen.drive.figures import Latency
from connect_loadgen.experiment.numbers import count, figure, share
from connect_loadgen.experiment.results import RunResult
from connect_loadgen.report.blocks import Cell, Column, Table, Tone, missing

__all__ = ["cost_table", "generator_table", "latency_table", "load_table", "run_warnings"]

_FACTS = (Column("Figure", is_text=True), Column("Value"), Column("Unit", is_text=True))


def load_table(result: RunResult) -> Table:
    """Return what was sent and what came of it."""
    load = result.load
    rate = [] if load.intended_rate is None else [_fact("Intended", load.intended_rate, "ops/s")]
    return Table(
        title=f"Load: {load.model}",
        columns=_FACTS,
        rows=(
            _fact("Measured time", load.duration_seconds, "s"),
            *rate,
            _fact("Throughput", load.messages_per_second, "messages/s"),
            _fact("Throughput", load.operations_per_second, "ops/s"),
            _total("Sent", load.operations_sent, "operations"),
            _total("Finished", load.operations_finished, "operations"),
            _total("Messages", load.messages, ""),
            _total("Sent out of order", load.reordered_messages, "messages"),
            _fault("Wrong answers", load.verification_failures, "operations"),
            *(
                _fault(f"Failed: {status}", number, "operations")
                for status, number in sorted(load.errors.items())
            ),
            _fault("Skipped: cap in flight", load.skipped_at_cap, "sends"),
            _fault("Skipped: late generator", load.skipped_by_late_generator, "sends"),
            *(
                [_fault("Skipped: churn", load.replacements_skipped, "channels")]
                if load.replacements_skipped
                else []
            ),
        ),
    )


def latency_table(result: RunResult) -> Table:
    """Return a row for each kind of operation and each moment that it is measured from."""
    rows = []
    for kind, latency in result.load.latency.items():
        name = kind.replace("_", " ")
        if latency.from_intended_send is not None:
            rows.append((Cell(name), Cell("due"), *_percentiles(latency.from_intended_send)))
        rows.append((Cell(name), Cell("sent"), *_percentiles(latency.service_time)))
    rows += [
        (Cell(name), Cell("due"), *_percentiles(latency))
        for name, latency in result.load.lifecycle.items()
    ]
    return Table(
        title="Latency of right answers, ms",
        columns=(
            Column("Operation", is_text=True),
            Column("From", meaning="When it was due, or when it was sent.", is_text=True),
            Column("Count"),
            Column("Mean"),
            Column("p50"),
            Column("p90"),
            Column("p99"),
            Column("p99.9"),
            Column("p99.99"),
            Column("Max"),
        ),
        rows=tuple(rows),
        notes=() if rows else ("No operation had a right answer.",),
        keys=2,
    )


def cost_table(result: RunResult) -> Table:
    """Return what the load cost the service."""
    cost = result.cost
    rows: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()
    if cost is None:
        notes = ("The service's metrics were not read: give --target-metrics.",)
    else:
        unread = "the service does not tell"
        elsewhere = "its data directory is its own: known of a service that was started here"
        each = cost.messages
        rows = (
            _per("CPU", cost.cpu_seconds, each, "s / 1,000 messages", unread, scale=1000),
            _per("Record", cost.record_bytes, each, "B/message", ""),
            _per("Snapshots", cost.snapshot_bytes, each, "B/message", ""),
            _per("Disk writes", cost.disk_write_bytes, each, "B/message", unread),
            _per("File growth", cost.file_growth_bytes, each, "B/message", elsewhere),
            _total("Commits", cost.commits, "in all"),
            _total("Snapshots", cost.snapshots, "in all"),
            _fact("CPU share", cost.cpu_share, "cores", unread),
            _fact(
                "Peak memory",
                None if cost.peak_rss_bytes is None else cost.peak_rss_bytes / 1e6,
                "MB",
                unread,
            ),
        )
    return Table(title="Cost to the service", columns=_FACTS, rows=rows, notes=notes)


def generator_table(result: RunResult) -> Table:
    """Return how the generator fared, since a slow one spoils every figure."""
    generator = result.load.generator
    processes = len(result.load.processes) or 1
    return Table(
        title="Generator's check of itself",
        columns=_FACTS,
        rows=(
            (Cell("Processes"), Cell(count(processes), processes), Cell("")),
            (
                Cell("CPU"),
                Cell(share(generator.cpu_share), generator.cpu_share),
                Cell("of a core"),
            ),
            _lag("Loop woke late, p99", generator.loop_lag, "not sampled"),
            _lag("Sent late, p99", generator.send_lag, "a closed loop has no due time"),
        ),
    )


def run_warnings(result: RunResult) -> list[str]:
    """Return what is wrong with the run or makes its figures doubtful, in sentences."""
    load = result.load
    warnings = [] if load.stopped is None else [f"stopped early: {load.stopped}"]
    if load.generator.warnings:
        warnings.append(load.generator.verdict)
    warnings += load.generator.warnings
    if load.skipped_at_cap:
        warnings.append(
            f"{count(load.skipped_at_cap)} sends were skipped at the cap on what is in flight: the"
            " service did not keep up with the rate"
        )
    if load.verification_failures:
        warnings.append(f"{count(load.verification_failures)} answers were WRONG")
    if load.errors:
        failed = ", ".join(f"{status} {count(n)}" for status, n in sorted(load.errors.items()))
        warnings.append(f"operations failed: {failed}")
    return warnings


def _fact(name: str, value: float | None, unit: str, reason: str = "") -> tuple[Cell, ...]:
    there = missing(f"{name}: {reason}") if value is None else Cell(figure(value), value)
    return Cell(name), there, Cell(unit)


def _total(name: str, value: float, unit: str) -> tuple[Cell, ...]:
    return Cell(name), Cell(count(value), value), Cell(unit)


def _fault(name: str, value: int, unit: str) -> tuple[Cell, ...]:
    tone = Tone.WORSE if value else Tone.NEUTRAL
    return Cell(name), Cell(count(value), value, tone), Cell(unit)


def _per(
    name: str, amount: float | None, each: int, unit: str, reason: str, *, scale: float = 1
) -> tuple[Cell, ...]:
    if amount is not None and not each:
        return _fact(name, None, unit, "no message got through")
    return _fact(name, None if amount is None else amount / each * scale, unit, reason)


def _lag(name: str, latency: Latency | None, reason: str) -> tuple[Cell, ...]:
    return _fact(name, None if latency is None else latency.p99_us / 1000, "ms", reason)


def _percentiles(latency: Latency) -> tuple[Cell, ...]:
    in_microseconds = (
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p99_9_us,
        latency.p99_99_us,
        latency.max_us,
    )
    return (
        Cell(count(latency.count), latency.count),
        *(Cell(figure(value / 1000), value) for value in in_microseconds),
    )
