"""PromQL for panels: every selector obeys the dashboard's variables, every rate Grafana's interval.

A counter is only ever read by ``rate`` or ``increase``; a ratio has no value, instead of NaN,
while its denominator is 0.
"""

__all__ = [
    "INTERVAL",
    "OPERATION",
    "STRATEGY",
    "against_full",
    "buckets",
    "increase",
    "mean",
    "process_of_service",
    "quantile",
    "rate",
    "ratio",
    "resolve",
    "rule",
    "selector",
    "value",
]

INTERVAL = "$__rate_interval"
STRATEGY = 'strategy=~"$strategy"'
_FULL = 'strategy="full"'
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
    return f"histogram_quantile({share:g}, {buckets(histogram, *matchers, by=f'le, {by}')})"


def buckets(histogram: str, *matchers: str, by: str = "le") -> str:
    """Return the increase per second of a histogram's buckets."""
    return rate(f"{histogram}_bucket", *matchers, by=by)


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


def against_full(what: str, loop: str, *, per_message: bool, inverse: bool = False) -> str:
    """Return what a strategy's rate is in one part of the course, as a multiple of full's.

    Args:
        what: the metric of a ``strategy_loop`` recording rule.
        loop: ``open``, the part with an equal load, or ``closed``, the part at the limit.
        per_message: whether to divide by messages first.
        inverse: whether to return full's as a multiple of the strategy's.
    """

    def mean_rate(metric: str, matcher: str) -> str:
        series = f'strategy_loop:{metric}:rate15s{{loop="{loop}", {matcher}}}'
        return f"avg by (strategy) (avg_over_time({series}[$__range]))"

    def amount(matcher: str) -> str:
        rate = mean_rate(what, matcher)
        return f"{rate} / {mean_rate('connect_changes', matcher)}" if per_message else rate

    full = f"scalar({amount(_FULL)})"
    return f"{full} / ({amount(STRATEGY)})" if inverse else f"({amount(STRATEGY)}) / {full}"


def resolve(expression: str, rate_interval: str, time_range: str) -> str:
    """Return a query as Grafana sends it with everything chosen.

    Args:
        expression: as in the dashboard.
        rate_interval: what ``$__rate_interval`` is, such as ``20s``.
        time_range: what ``$__range`` is.
    """
    for name in ("job", "instance", "strategy", "operation"):
        expression = expression.replace(f'=~"${name}"', '=~".+"')
    return expression.replace(INTERVAL, rate_interval).replace("$__range", time_range)
