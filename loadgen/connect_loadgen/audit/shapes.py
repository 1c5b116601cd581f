"""Shapes of load: one thing changed at a time, to see where the strategies cross over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from connect_loadgen.probes.trial import Variant
from connect_loadgen.settings.load import LoadSettings

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A load that differs from the usual one in one respect."""

    axis: str
    """What is changed."""
    value: str
    load: Mapping[str, object] = field(default_factory=dict)
    """Settings that differ from the command's."""
    dh_ratchet_every: int = 10
    snapshot_interval: int = 50
    is_quick: bool = False
    """Whether a quick audit looks at it, too."""

    @property
    def name(self) -> str:
        """Key in the result file."""
        return f"{self.axis}: {self.value}"

    def variants(self) -> tuple[Variant, ...]:
        """Return the strategies, as this shape runs them."""
        return tuple(
            Variant(
                strategy,
                strategy,
                dh_ratchet_every=self.dh_ratchet_every,
                snapshot_interval=self.snapshot_interval,
            )
            for strategy in ("full", "cached", "differential")
        )

    def settings(self, usual: LoadSettings) -> LoadSettings:
        """Return the usual settings, changed."""
        return usual.model_copy(update=dict(self.load))


# Held keys stay held only while the peer's chain is the same, so it never turns there.
_NEVER = 1_000_000

SHAPES = (
    Shape("usual", "as configured", is_quick=True),
    Shape("channels", "1", {"channels": 1}, is_quick=True),
    Shape("channels", "100", {"channels": 100}),
    Shape("channels", "5,000", {"channels": 5_000}),
    Shape("message", "64 B", {"payload_bytes": "64"}),
    Shape("message", "1 KiB", {"payload_bytes": "1024"}),
    Shape("message", "16 KiB", {"payload_bytes": "16384"}, is_quick=True),
    Shape("out of order", "none", {"out_of_order": 0.0}),
    Shape("out of order", "5 %", {"out_of_order": 0.05}),
    Shape("one-time prekeys", "10", {"one_time_prekeys": 10}),
    Shape("one-time prekeys", "100", {"one_time_prekeys": 100}, is_quick=True),
    Shape("snapshot every", "10", snapshot_interval=10, is_quick=True),
    Shape("snapshot every", "50", snapshot_interval=50),
    Shape("snapshot every", "200", snapshot_interval=200),
    Shape("DH ratchet every", "1", dh_ratchet_every=1, is_quick=True),
    Shape("DH ratchet every", "10", dh_ratchet_every=10),
    Shape("DH ratchet every", "100", dh_ratchet_every=100),
    Shape(
        "skipped keys held",
        "0",
        {"channels": 100, "skipped_keys": 0},
        dh_ratchet_every=_NEVER,
    ),
    Shape(
        "skipped keys held",
        "100",
        {"channels": 100, "skipped_keys": 100},
        dh_ratchet_every=_NEVER,
    ),
    Shape(
        "skipped keys held",
        "1,000",
        {"channels": 100, "skipped_keys": 1_000},
        dh_ratchet_every=_NEVER,
        is_quick=True,
    ),
)
