"""PromQL for panels: every selector obeys the dashboard's variables, every rate Grafana's interval.

A counter is only ever read by ``rate`` or ``increase``; a ratio has no value, instead of NaN,
while its denominator is 0.
"""

__all__ = [
    "INTERVAL",
    "OPERATION",
    "STRATEGY",
    "increase",
    "mean",
    "process_of_service",
    "quantile",
    "rate",
    "ratio",
    "relative",
    "rule",
    "selector",
    "value",
]

INTERVAL = "$__rate_interval"
STRATEGY = 'strategy=~"$strategy"'
OPERATION = 'operation=~"$operation"'

_TARGET = 'job=~"$job", instance=~"$instance"'


def selector(metric: str, *matchers: str) -> str:
    """Return a metric of the chosen targets."""
    return f"{metric}{{{', '.join((_TARGET, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "strategy") -> str:
    """Return the increase per second of a counter, summed up."""
    return f"sum by ({by}) (rate({selector(metric, *matchers)}[{INTERVAL}]))"


def increase(metric: str, *matchers: str, by: str = "strategy") -> str:
    """Return the increase of a counter over the dashboard's time range, summed up."""
    return f"sum by ({by}) (increase({selector(metric, *matchers)}[$__range]))"


def value(metric: str, *matchers: str, by: str = "strategy", how: str = "sum") -> str:
    """Return a gauge, aggregated by ``how``."""
    return f"{how} by ({by}) ({selector(metric, *matchers)})"


def rule(name: str, *matchers: str, by: str = "strategy", how: str = "avg") -> str:
    """Return what a recording rule has computed, aggregated over instances by ``how``."""
    return value(name, *matchers, by=by, how=how)


def quantile(share: float, histogram: str, *matchers: str, by: str = "strategy") -> str:
    """Return a quantile of a histogram, merged before it is taken."""
    buckets = rate(f"{histogram}_bucket", *matchers, by=f"le, {by}")
    return f"histogram_quantile({share:g}, {buckets})"


def mean(histogram: str, *matchers: str, by: str = "strategy") -> str:
    """Return the mean of what a histogram has counted."""
    return ratio(
        rate(f"{histogram}_sum", *matchers, by=by), rate(f"{histogram}_count", *matchers, by=by)
    )


def ratio(above: str, below: str) -> str:
    """Return a quotient that is absent while ``below`` is 0."""
    return f"{above} / ({below} > 0)"


def process_of_service(expression: str, metric: str, by: str = "strategy") -> str:
    """Return a metric of the process itself, which names no strategy, by strategy.

    Args:
        expression: what to take of the metric; ``{}`` stands for its selector.
        metric: one of prometheus_client's own, ``process_…`` or ``python_…``.
        by: labels to sum up by.
    """
    what = expression.format(selector(metric))
    strategies = value("connect_service_info", STRATEGY, by="job, instance, strategy", how="max")
    return f"sum by ({by}) ({what} * on (job, instance) group_left (strategy) {strategies})"


def relative(name: str, baseline: str = 'strategy="full"') -> str:
    """Return what a recording rule has computed, by strategy, as a multiple of the baseline's."""
    return f"{rule(name, STRATEGY)} / scalar(avg({selector(name, baseline)}))"
