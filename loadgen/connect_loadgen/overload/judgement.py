"""What a service that is asked for too much must still do; rules on figures and nothing else."""

import statistics
from collections.abc import Sequence

from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.numbers import rounds
from connect_loadgen.overload.results import ConnectionsFound, Phase, RefusalCost
from connect_loadgen.report.promises import OPERATIONS, Promise

__all__ = ["judge", "normal_p99", "seconds_to_normal"]

# The issue's own words: within 20 % of its best.
_LEAST_SHARE = 0.8
_MOST_RECOVERY_SECONDS = 5.0
# Beyond what it holds for its bounds, which are small beside it, memory has no reason to grow.
_MOST_RSS_GROWTH = 1.5
# "Refused cheaply": what is left is reading, counting and answering.
_MOST_REFUSAL_SHARE = 0.33
# Of a call, that is gRPC's work before all, which no service of Python can spare a caller.
_MOST_REFUSAL_OF_BARE = 1.5
# A flood takes all the CPU that it can get: survived is what goes on at all, and soon.
_MOST_P99_IN_FLOOD_MS = 1_000.0
# A percentile that is small to begin with may double by a single late sync.
_SLACK_MS = 25.0
_NORMAL_FACTOR = 2.0
# For as long as this many windows, latency has to stay normal.
_STEADY_WINDOWS = 2


def normal_p99(windows: Sequence[Window]) -> float | None:
    """Return up to which p99, in ms, latency counts as normal, from windows of a normal load."""
    known = [window.p99_ms for window in windows if window.p99_ms is not None]
    if not known:
        return None
    usual = statistics.median(known)
    return max(usual * _NORMAL_FACTOR, usual + _SLACK_MS)


def seconds_to_normal(
    windows: Sequence[Window], dropped_at: float, normal_ms: float
) -> float | None:
    """Return how long after the load dropped latency was normal again and stayed so for a while.

    Args:
        windows: in order, of the time after the drop at least.
        dropped_at: when it dropped, on the windows' clock.
        normal_ms: the highest p99 that is normal.
    """
    steady = 0
    for window in windows:
        if window.at_seconds < dropped_at:
            continue
        is_normal = window.p99_ms is not None and window.p99_ms <= normal_ms
        steady = steady + 1 if is_normal else 0
        if steady == _STEADY_WINDOWS:
            began = window.at_seconds - (_STEADY_WINDOWS - 1) * window.seconds
            return max(began - dropped_at, 0.0)
    return None


def judge(
    phases: Sequence[Phase],
    best_per_second: float,
    recovery_seconds: float | None,
    refusal: RefusalCost,
    connections: ConnectionsFound | None,
    wrong_answers: int,
) -> list[Promise]:
    """Hold the figures against the promises.

    Args:
        phases: 0.7, 1, 3 and 0.7 times the sustainable rate, in this order.
        best_per_second: highest throughput seen at any load.
        recovery_seconds: see ``seconds_to_normal``.
        refusal: what it costs.
        connections: what many of them do, if they were tried.
        wrong_answers: of all phases.
    """
    _, normal, overload, _ = phases
    share = _ratio(overload.accepted_per_second, best_per_second)
    growth = _ratio(overload.peak_rss_bytes, normal.peak_rss_bytes)
    promises = [
        Promise.at_least(_LEAST_SHARE, "ratio", "Throughput under overload, of the best", share),
        _judge_cost(refusal),
        Promise.at_least(
            1, "1 = all", "Refusals that say when to try again", float(refusal.has_retry_info)
        ),
        Promise.at_most(
            _MOST_RSS_GROWTH,
            "ratio",
            "Peak memory under overload, of that at a sustainable load",
            growth,
        ),
        Promise.at_most(
            _MOST_RECOVERY_SECONDS,
            "s",
            "Until latency is normal again after the load drops",
            recovery_seconds,
        ),
        Promise.at_most(0, OPERATIONS, "Wrong answers", wrong_answers),
    ]
    if connections is not None:
        promises.extend(_judge_connections(connections))
    return promises


def _judge_cost(refusal: RefusalCost) -> Promise:
    remark = f"{refusal.refused:,} were refused to find out"
    if refusal.of_bare is None:
        return Promise.at_most(
            _MOST_REFUSAL_SHARE,
            "ratio",
            "CPU of a refused operation, of an accepted one",
            _ratio(refusal.refused_cpu_us, refusal.accepted_cpu_us),
            remark=remark,
        )
    return Promise.at_most(
        _MOST_REFUSAL_OF_BARE,
        "ratio",
        "CPU of a refused call, of one that a bare gRPC server answers",
        refusal.of_bare.median,
        remark=f"{rounds(refusal.of_bare)}; {remark}",
    )


def _ratio(value: float, base: float) -> float | None:
    return value / base if base else None


def _judge_connections(found: ConnectionsFound) -> list[Promise]:
    alone = found.p99_alone_ms
    # Without a load alone that was answered there is nothing to compare with.
    bound = 0.0 if alone is None else max(alone * _NORMAL_FACTOR, alone + _SLACK_MS)
    return [
        Promise.at_most(
            bound,
            "ms",
            f"p99 of others beside {found.idle:,} idle connections",
            found.p99_with_idle_ms,
            note="" if alone is None else f" ({alone:.1f} alone)",
        ),
        Promise.at_most(
            _MOST_P99_IN_FLOOD_MS,
            "ms",
            "p99 of others in a flood of connections",
            found.p99_in_flood_ms,
        ),
        Promise.at_most(
            0,
            OPERATIONS,
            "Operations of others that failed meanwhile",
            sum(found.errors.values()),
        ),
    ]
