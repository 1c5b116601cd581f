"""The home dashboard: whether anything is wrong, and where to look if so.

Rate, errors and duration of each operation, the client's view beside the service's, and what fills
up before latency rises.
"""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from grafana.dashboards.kit import (
    WHOLE,
    Limit,
    Line,
    Panel,
    Section,
    chart,
    dashboard,
    figure,
    latency,
)
from grafana.dashboards.queries import (
    OPERATION,
    STRATEGY,
    buckets,
    increase,
    process_of_service,
    quantile,
    rate,
    rule,
    selector,
    value,
)

__all__ = ["SLOW_BUDGET", "build"]

SLOW_BUDGET = 0.01
"""Share of operations that may be slow; the alert ConnectOperationsSlow has multiples of it."""

_NO_GENERATOR = "No generator among the chosen instances, or it does not run."
_THIRD = WHOLE // 3
_HALF = WHOLE // 2


def build() -> builders.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "overview",
        "Whether channels are served, how fast, and what fills up first.",
        Section("Health", _figures()),
        Section("Operations", _operations()),
        Section("Client and service", _both_sides()),
        Section("Saturation", _saturation()),
        by_operation=True,
    )


def _figures() -> list[Panel]:
    firing = selector("ALERTS", 'alertstate="firing"')
    return [
        figure(
            "Targets down",
            "Services and generators that Prometheus can't scrape, of those chosen. Unless 0,"
            " other figures are incomplete.",
            units.Short,
            Line(f"sum(1 - {selector('up')})", "down"),
            limit=Limit(1),
            empty="no target",
        ),
        figure(
            "Alerts firing",
            "Alerts of grafana/prometheus/rules/alerts.yml; the runbook says what to do.",
            units.Short,
            Line(f"count({firing}) or vector(0)", "firing"),
            limit=Limit(1),
        ),
        figure(
            "Messages",
            "Messages encrypted or decrypted per second, all chosen services together.",
            units.MessagesPerSecond,
            Line(
                rate("connect_changes_total", STRATEGY, by=""),
                "messages",
            ),
        ),
        figure(
            "Error share",
            "Answers other than OK of all answers over a minute, of the worst service. Red from"
            " 0.1 %.",
            units.PercentUnit,
            Line(
                rule(
                    "instance_strategy:connect_operation_errors_per_operations:ratio_rate1m",
                    STRATEGY,
                    by="",
                    how="max",
                ),
                "errors",
            ),
            limit=Limit(0.001),
        ),
        figure(
            "Slow share",
            "Operations slower than their objective (100 ms, a handshake 250 ms) of all over five"
            " minutes, for the worst kind of operation. The objective allows 1 %, red from there"
            " on; the alert ConnectOperationsSlow fires at several times as much.",
            units.PercentUnit,
            Line(
                rule(
                    "instance_strategy_operation:connect_operations_slow:ratio_rate5m",
                    STRATEGY,
                    by="",
                    how="max",
                ),
                "slow",
            ),
            limit=Limit(SLOW_BUDGET),
        ),
        figure(
            "Wrong answers",
            "Answers in this time range that were not what they had to be, as the generator,"
            " which checks every byte, has found. Must be 0.",
            units.Short,
            Line(increase("loadgen_verification_failures_total", STRATEGY, by=""), "wrong"),
            limit=Limit(1),
            decimals=0,
            empty="no generator",
        ),
    ]


def _operations() -> list[Panel]:
    return [
        chart(
            "Operations per second",
            "Answered operations per second, whatever the answer.",
            units.OpsPerSecond,
            Line(
                rate("connect_operations_total", STRATEGY, OPERATION, by="operation"),
                "{{operation}}",
            ),
            stacked=True,
            width=_THIRD,
        ),
        chart(
            "Errors per second",
            "Operations per second that were answered with another status than OK. If not 0,"
            " the next panel shows why.",
            units.OpsPerSecond,
            Line(
                rate(
                    "connect_operations_total",
                    STRATEGY,
                    OPERATION,
                    'status!="OK"',
                    by="operation",
                ),
                "{{operation}}",
            ),
            width=_THIRD,
        ),
        chart(
            "Refusals by reason",
            "Refused operations per second by ErrorInfo.reason. OVERLOADED, WRITE_…, READ_FAILED,"
            " CHANNEL_DAMAGED and ACTOR_CRASHED are the service's own trouble, the rest the"
            " peers'.",
            units.OpsPerSecond,
            Line(f"{rate('connect_refusals_total', STRATEGY, by='reason')} > 0", "{{reason}}"),
            empty="Nothing is refused.",
            width=_THIRD,
        ),
        chart(
            "p99 by operation",
            "From the operation's arrival at the servicer to its answer handed to gRPC; waits for"
            " mailbox and commit included. 99 of 100 operations take no longer than this.",
            units.Seconds,
            Line(
                quantile(
                    0.99,
                    "connect_operation_duration_seconds",
                    STRATEGY,
                    OPERATION,
                    by="operation",
                ),
                "{{operation}}",
            ),
            width=_THIRD,
        ),
        latency(
            "Duration",
            "Operations per second by how long they took, from the operation's arrival at the"
            " servicer to its answer handed to gRPC. A second band above the first: operations wait"
            " for something now and then, such as a commit or a recovery. The log has a line `slow`"
            " with the request id of what took a second or longer; at `--log-level debug` grep for"
            " that id shows when it arrived, was recorded, durable and answered.",
            buckets("connect_operation_duration_seconds", STRATEGY, OPERATION),
            width=_THIRD,
        ),
        chart(
            "Redeliveries",
            "Answers per second that were given once more, to a Decrypt or an Encrypt that was"
            " repeated since its answer got lost. Steady: something between peers and service"
            " loses answers.",
            units.OpsPerSecond,
            Line(rate("connect_redeliveries_total", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
    ]


def _both_sides() -> list[Panel]:
    right = 'outcome="right"'
    return [
        chart(
            "Intended and achieved",
            "Operations per second that the generators mean to send, and that end with the"
            " right answer. A round trip is one operation here, and two for the service. In a"
            " closed loop nothing is intended. Achieved below intended: the service can't keep"
            " up.",
            units.OpsPerSecond,
            Line(value("loadgen_intended_rate", STRATEGY), "intended, {{strategy}}"),
            Line(rate("loadgen_operations_total", STRATEGY, right), "achieved, {{strategy}}"),
            empty=_NO_GENERATOR,
            width=_HALF,
        ),
        chart(
            "p99, client and service",
            "99th percentile. The client counts from when an operation was due,"
            " the service from its arrival; a round trip of the client is two operations. The"
            " difference is queueing and transport.",
            units.Seconds,
            Line(
                rule("instance_strategy:loadgen_latency_seconds:p99_rate1m", STRATEGY, how="max"),
                "client, {{strategy}}",
            ),
            Line(
                quantile(0.99, "connect_operation_duration_seconds", STRATEGY),
                "service, {{strategy}}",
            ),
            width=_HALF,
        ),
        chart(
            "Messages, client and service",
            "Messages per second, as the service has changed sessions and as the peers have got"
            " right answers. They part while operations fail or answers get lost.",
            units.MessagesPerSecond,
            Line(rate("loadgen_messages_total", STRATEGY), "client, {{strategy}}"),
            Line(rate("connect_changes_total", STRATEGY), "service, {{strategy}}"),
            width=_THIRD,
        ),
        chart(
            "Errors and skipped sends",
            "Per second. Errors: operations that end with an error status, or without an"
            " answer. Skipped: operations that were due and not sent, because too many were in"
            " flight or the generator itself was late; no latency counts them. Both must be 0,"
            " or latency looks better than it is.",
            units.OpsPerSecond,
            Line(rate("loadgen_errors_total", STRATEGY), "errors, {{strategy}}"),
            Line(rate("loadgen_skipped_total", STRATEGY), "skipped, {{strategy}}"),
            empty=_NO_GENERATOR,
            width=_THIRD,
        ),
        latency(
            "Client latency",
            "Operations per second by how long their client waited, from when they were due.",
            buckets("loadgen_latency_seconds", STRATEGY),
            width=_THIRD,
        ),
    ]


def _saturation() -> list[Panel]:
    return [
        chart(
            "In flight",
            "Operations accepted and not yet answered, at each scrape. Growing: work comes"
            " faster than it is done.",
            units.Short,
            Line(value("connect_operations_in_flight", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
        chart(
            "Mailbox depth, p99",
            "99th percentile of the messages that an actor finds waiting when it gets a turn."
            " More than a few: single channels are busy.",
            units.Short,
            Line(quantile(0.99, "connect_mailbox_depth", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
        chart(
            "Commit queue",
            "Writes that wait for the next commit, at each scrape; those of the commit under way do"
            " not count. Growing: the disk is the limit.",
            units.Short,
            Line(value("connect_journal_waiting_writes", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
        chart(
            "CPU cores",
            "Cores used by the services of each strategy together, all threads. Near one core"
            " for each service, the interpreter is the limit.",
            units.Short,
            Line(
                process_of_service("rate({}[$__rate_interval])", "process_cpu_seconds_total"),
                "{{strategy}}",
            ),
            width=_THIRD,
        ),
        chart(
            "Event loop lag, p99",
            "99th percentile of how late the loop wakes, sampled every 100 ms. Below the"
            " timers' resolution of 1 ms it is on time. All operations wait as long.",
            units.Seconds,
            Line(quantile(0.99, "connect_event_loop_lag_seconds", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
        chart(
            "Recovery queue",
            "Actors that wait for one of the permits to load, at each scrape. Above 0 for long"
            " after a restart only.",
            units.Short,
            Line(value("connect_recovery_permits_waiting", STRATEGY), "{{strategy}}"),
            width=_THIRD,
        ),
    ]
