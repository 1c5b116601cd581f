"""The generator's own view for Prometheus, beside the service's, while a load runs.

Cumulative over the process's life: warm-up and measured phase alike. Counts come from the phases'
recorders when they are asked for; ``docs/reference/metrics.md`` says what each figure means.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

import grpc
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from connect_actor.network.addresses import ListenError, parse_host_port
from connect_actor.observe.counting import Distribution
from connect_actor.observe.exposition import serve_metrics
from connect_actor.observe.families import Families
from connect_loadgen.drive.pacing import NO_ANSWER, Line, LoopName
from connect_loadgen.drive.peer import Outcome
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.workload import Kind
from connect_loadgen.settings.load import ConfigurationError

__all__ = ["LoadExporter"]

# All that an operation can fail with: known from the start, so that a first failure is an increase.
_ERRORS = (*(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK), NO_ANSWER)


class LoadExporter(Collector):
    """Publishes one load."""

    def __init__(self, intended_rate: float | None) -> None:
        """Begin with nothing to show but the rate, operations per second; None: a closed loop."""
        self._intended_rate = intended_rate
        self._line: Line | None = None
        self._families = Families("loadgen_", {})

    def watch(self, line: Line) -> None:
        """Publish what goes over this line."""
        self._line = line

    @contextmanager
    def serving(self, address: str | None) -> Iterator[str | None]:
        """Serve at HOST:PORT, if one is given, and yield where it is, with the port taken.

        Raises:
            ConfigurationError: the address can't be listened on.
        """
        if address is None:
            yield None
            return
        try:
            server = serve_metrics(self, address)
        except OSError as error:
            raise ConfigurationError(
                str(ListenError.of("--serve-metrics", address, error))
            ) from None
        try:
            yield str(parse_host_port(address).with_port(server.server_port))
        finally:
            server.shutdown()

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric."""
        families, line = self._families, self._line
        recorders: Sequence[Recorder] = [] if line is None else tuple(line.recorders)
        latency = {
            kind: _sum([recorder.latency_buckets[kind] for recorder in recorders]) for kind in Kind
        }
        if self._intended_rate is not None and (line is None or line.loop != "closed"):
            yield families.gauge(
                "intended_rate", "Operations per second to be sent.", self._intended_rate
            )
        yield families.gauges(
            "pacing",
            "1 for the loop that sends operations.",
            ["loop"],
            [((loop,), line is not None and line.loop == loop) for loop in get_args(LoopName)],
        )
        yield families.counters(
            "operations",
            "Operations that have ended.",
            ["operation", "outcome"],
            [
                series
                for kind in Kind
                for series in (
                    ((kind.value, "right"), latency[kind].count),
                    *(
                        (
                            (kind.value, outcome.name.lower()),
                            sum(recorder.failures[kind, outcome] for recorder in recorders),
                        )
                        for outcome in (Outcome.WRONG, Outcome.ERROR)
                    ),
                )
            ],
        )
        yield families.counter(
            "messages",
            "Messages that the service encrypted or decrypted rightly.",
            sum(recorder.messages for recorder in recorders),
        )
        yield families.histograms(
            "latency_seconds",
            "From the intended send time to the right answer.",
            ["operation"],
            [((kind.value,), latency[kind]) for kind in Kind],
        )
        yield families.counter(
            "verification_failures",
            "Answers that are not what they must be.",
            sum(recorder.wrong for recorder in recorders),
        )
        errors = Counter(dict.fromkeys(_ERRORS, 0))
        for recorder in recorders:
            errors.update(dict(recorder.errors))
        yield families.counters(
            "errors",
            "Operations that ended with an error status.",
            ["status"],
            [((status,), count) for status, count in errors.items()],
        )
        yield families.counters(
            "skipped",
            "Sends that were left out.",
            ["reason"],
            [
                (("cap",), sum(recorder.skipped_at_cap for recorder in recorders)),
                (("late",), sum(recorder.skipped_late for recorder in recorders)),
            ],
        )
        yield families.gauge(
            "operations_in_flight",
            "Operations begun and not ended.",
            0 if line is None else line.peers.unanswered,
        )
        yield families.gauge(
            "channels", "Channels established.", 0 if line is None else len(line.peers.peers)
        )


def _sum(distributions: Sequence[Distribution]) -> Distribution:
    total = Distribution()
    for distribution in distributions:
        total.include(distribution)
    return total
