"""Request metrics: what the gRPC surface has counted."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from connect_actor.observe.families import Families
from connect_actor.rpc.admission import Admission
from connect_actor.rpc.statistics import UNKNOWN_OPERATION, RequestStatistics

__all__ = ["request_metrics"]


def request_metrics(
    families: Families, requests: RequestStatistics, admission: Admission
) -> Iterator[Metric]:
    """Yield the metrics of rate, errors, duration and saturation of requests."""
    yield families.counters(
        "operations",
        "Answered operations.",
        ["operation", "transport", "status"],
        [
            ((operation, transport, status), count)
            for operation, statistics in requests.operations.items()
            for transport, counts in (("unary", statistics.unary), ("stream", statistics.stream))
            for status, count in counts.items()
            # Of an operation that nobody knows only refusals can be expected, and those are few.
            if operation != UNKNOWN_OPERATION or count
        ],
    )
    yield families.histograms(
        "operation_duration_seconds",
        "From accepted by the servicer to the answer handed to gRPC.",
        ["operation"],
        [
            ((operation,), statistics.duration)
            for operation, statistics in requests.operations.items()
        ],
    )
    yield families.gauges(
        "operations_in_flight",
        "Operations accepted and not yet answered.",
        ["transport"],
        [(("unary",), requests.unary_in_flight), (("stream",), requests.stream_in_flight)],
    )
    yield families.gauge(
        "operations_under_way", "Operations admitted and not yet answered.", admission.under_way
    )
    yield families.gauge(
        "held_bytes", "Bytes of those, and of answers not yet written.", admission.held_bytes
    )
    yield families.counters(
        "refusals",
        "Refused operations, by reason.",
        ["reason"],
        [((reason,), count) for reason, count in requests.refusals.items()],
    )
    yield families.gauge("streams_open", "Exchange streams open.", requests.streams_open)
    frames = (("in", requests.frames_in), ("out", requests.frames_out))
    yield families.counters(
        "stream_frames",
        "Frames on Exchange streams.",
        ["direction"],
        [((direction,), sizes.count) for direction, sizes in frames],
    )
    yield families.histograms(
        "stream_frame_operations",
        "Operations in each frame.",
        ["direction"],
        [((direction,), sizes) for direction, sizes in frames],
    )
