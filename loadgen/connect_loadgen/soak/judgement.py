"""Whether a soak shows a leak; rules on samples and nothing else.

The first half of a run is for filling what may be filled: caches, pools, the journal up to where
its cleaning begins. A figure is flat if in the second half its growth is within what is tolerated,
or so small that it can't be told from noise. It is broken only if the growth is sure: the whole of
the slope's 95 % interval is above 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from connect_loadgen.experiment.numbers import rounds
from connect_loadgen.experiment.results import Ratio
from connect_loadgen.experiment.trend import trend_of
from connect_loadgen.report.promises import OPERATIONS, Promise
from connect_loadgen.soak.results import Ageing, SoakSample
from connect_loadgen.soak.settings import SoakSettings

__all__ = ["judge_ageing", "judge_load", "judge_samples", "second_half"]

# Of its median: less than this in half a run is noise, whatever it makes in an hour.
_NOISE_PERCENT = 1.0
_NOISE_PERCENT_OF_LATENCY = 20.0
# A WAL comes and goes with each checkpoint: what counts is what it grows to, within this time.
_PEAK_SECONDS = 60.0
# Of the intended rate; the rest are arrivals by chance and the last operations.
_LEAST_ACHIEVED = 0.98
# Of a fresh service's: what an hour may add, as to the trends.
_MOST_P99_OF_FRESH = 1.25
_MOST_CPU_OF_FRESH = 1.05


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    values: Callable[[Sequence[SoakSample]], Sequence[float | None]]
    tolerated: float
    """Per cent an hour."""
    noise: float = _NOISE_PERCENT


def _figures(settings: SoakSettings) -> Sequence[_Figure]:
    return (
        _Figure("Memory (RSS)", _each(lambda sample: sample.rss_bytes), settings.max_rss_growth),
        _Figure("File descriptors", _each(lambda sample: sample.descriptors), 0.0),
        _Figure("Threads", _each(lambda sample: sample.threads), 0.0),
        _Figure(
            "Journal (database and WAL at its largest)", _journal_peaks, settings.max_journal_growth
        ),
        _Figure(
            "CPU of an operation",
            _each(lambda sample: sample.of_operation(sample.cpu_share)),
            settings.max_cpu_growth,
        ),
        _Figure(
            "p99 from the due time",
            _each(lambda sample: sample.p99_ms),
            settings.max_p99_growth,
            _NOISE_PERCENT_OF_LATENCY,
        ),
    )


def _each(
    value: Callable[[SoakSample], float | None],
) -> Callable[[Sequence[SoakSample]], Sequence[float | None]]:
    return lambda samples: [value(sample) for sample in samples]


def _journal_peaks(samples: Sequence[SoakSample]) -> Sequence[float]:
    """Return the database and the largest WAL of the last minute, at each sample."""
    peaks: list[float] = []
    first = 0
    for index, sample in enumerate(samples):
        while samples[first].at_seconds <= sample.at_seconds - _PEAK_SECONDS:
            first += 1
        wal = max(each.wal_bytes for each in samples[first : index + 1])
        peaks.append(float(sample.database_bytes + wal))
    return peaks


def second_half(samples: Sequence[SoakSample]) -> Sequence[SoakSample]:
    """Return what the verdicts rest on."""
    return samples[len(samples) // 2 :]


def judge_samples(samples: Sequence[SoakSample], settings: SoakSettings) -> list[Promise]:
    """Hold what the service held, sample by sample, against the promise that it is flat."""
    late = second_half(samples)
    return [_judge(figure, late) for figure in _figures(settings)]


def _judge(figure: _Figure, samples: Sequence[SoakSample]) -> Promise:
    known = [
        (sample.at_seconds, value)
        for sample, value in zip(samples, figure.values(samples), strict=True)
        if value is not None
    ]
    trend = trend_of(known)
    name, bound = f"{figure.name}: growth", f"at most {figure.tolerated:g} %/h"
    if trend is None:
        # A journal in memory has no files, so nothing of it grows.
        is_zero = bool(known) and not any(value for _, value in known)
        return Promise(
            name=name,
            bound=bound,
            value=0.0 if is_zero else None,
            unit="%/h",
            kept=is_zero,
            remark="always 0" if is_zero else "too few samples",
        )
    is_sure = trend.low > 0
    grows = trend.per_hour > figure.tolerated and trend.within > figure.noise
    return Promise(
        name=name,
        bound=bound,
        value=trend.per_hour,
        unit="%/h",
        kept=not (is_sure and grows),
        remark=(
            f"95 %: {trend.low:.2f} to {trend.high:.2f};"
            f" {trend.within:+.2f} % in {trend.seconds:,.0f} s"
        ),
    )


def judge_ageing(ageing: Ageing) -> list[Promise]:
    """Hold a soaked service against a fresh one: broken is what is slower in every round, too."""
    return [
        _judge_ratio("p99 of the soaked service, of a fresh one's", ageing.p99, _MOST_P99_OF_FRESH),
        _judge_ratio("CPU of an operation, likewise", ageing.cpu, _MOST_CPU_OF_FRESH),
        Promise.at_most(0, OPERATIONS, "Failed or wrong in those turns", ageing.failed),
    ]


def _judge_ratio(name: str, ratio: Ratio | None, most: float) -> Promise:
    return Promise(
        name=name,
        bound=f"at most {most:g}",
        value=None if ratio is None else ratio.median,
        unit="ratio",
        kept=ratio is not None and (ratio.median <= most or ratio.low <= 1),
        remark="too few answers" if ratio is None else rounds(ratio),
    )


def judge_load(asked: float, achieved: float, wrong: int, failed: int) -> list[Promise]:
    """Hold what became of the load against the promise that all of it was served.

    Args:
        asked: operations per second that the generator put on.
        achieved: operations per second that were answered.
        wrong: wrong answers.
        failed: operations that failed.
    """
    return [
        Promise.at_least(
            _LEAST_ACHIEVED,
            "ratio",
            "Throughput, of what was put on",
            achieved / asked if asked else None,
        ),
        Promise.at_most(0, OPERATIONS, "Wrong answers", wrong),
        Promise.at_most(0, OPERATIONS, "Failed operations", failed),
    ]
