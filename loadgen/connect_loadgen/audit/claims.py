"""What the audit claims, number by number, and which figure of ours answers it.

Claims are told in our words; the place names the audit's own section. Figures are named as in
``audit.figures``. A claim without a figure can't be measured here, and says why.
"""

from dataclasses import dataclass

from connect_loadgen.experiment.verdicts import AtLeast, Between, Expectation, Less, More

__all__ = ["CLAIMS", "Claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One number of the audit."""

    name: str
    """Key in the result file."""
    subject: str
    """Heading under which the table shows it."""
    text: str
    place: str
    """Section of the audit."""
    expected: Expectation | str
    """What to hold the figure against; only its wording if it can't be measured here."""
    figure: str | None
    """The figure that answers it."""
    remark: str = ""
    """Why it can't be measured, or what a reader has to know to read the verdict."""


_SUMMARY = "Executive Summary, Critical Findings"
_ROADMAP = "Executive Summary, Expected Performance Gains"
_KPI = "Executive Summary, Success Metrics"
_STATE = "Phase 2, ToProtoState/FromProtoState"
_ACTOR = "Phase 2, Actor State Persistence Patterns"
_PAYLOAD = "Phase 1, CipherPayload Creation and Processing"
_COPIES = "Phase 1, ByteString.CopyFrom Usage"
_ARRAYS = "Phase 1, ToByteArray() Usage"
_BENCHMARKS = "Phase 3, Expected Benchmark Results"
_ROI = "Executive Summary, ROI Analysis"

_KB = 1_000

_ALLOCATION = "Allocation per message"
_SIZE = "Bytes of state"
_SERIALISING = "Serialising the state"
_SPEED = "Throughput, latency, CPU"
_GC = "Garbage collection"
_DISK = "Disk"
_RECOVERY = "Recovery"
_SCALE = "Capacity"
_ELSEWHERE = "Not of this implementation"

CLAIMS: tuple[Claim, ...] = (
    # --- Allocation -----------------------------------------------------------------------------
    Claim(
        "allocation_cached_bytes",
        _ALLOCATION,
        "Caching what never changes saves this share of the bytes allocated for a message",
        "Executive Summary, Priority 1",
        Less(0.60, 0.80),
        "message_bytes.cached",
    ),
    Claim(
        "allocation_cached_blocks",
        _ALLOCATION,
        "The same, counted in allocations",
        f"{_STATE}, With Caching",
        Less(0.60, 0.80),
        "message_blocks.cached",
    ),
    Claim(
        "allocation_differential_bytes",
        _ALLOCATION,
        "With differential persistence too, allocations for a message fall by",
        f"{_KPI}, Technical KPIs",
        Less(0.90, 0.95),
        "message_bytes.differential",
    ),
    Claim(
        "allocation_differential_blocks",
        _ALLOCATION,
        "The same, counted in allocations",
        f"{_STATE}, With Full Optimization",
        Less(0.85, 0.95),
        "message_blocks.differential",
    ),
    Claim(
        "allocation_updates",
        _ALLOCATION,
        "Differential updates alone save this share",
        f"{_STATE}, With Differential Updates",
        Less(0.70, 0.90),
        "message_bytes.differential",
    ),
    Claim(
        "allocation_persistence",
        _ALLOCATION,
        "Of what persistence alone allocates, differential persistence saves",
        f"{_ACTOR}, With Differential Persistence",
        Less(0.95, 0.98),
        "record_bytes_allocated.differential",
    ),
    Claim(
        "allocation_full",
        _ALLOCATION,
        "A message allocates, with the whole state built and serialised",
        f"{_ACTOR}, Journal Persistence",
        Between(2 * _KB, 10 * _KB, "B"),
        "message_bytes.full.absolute",
    ),
    Claim(
        "allocation_after",
        _ALLOCATION,
        "After all optimisations a message allocates",
        _BENCHMARKS,
        Between(0.1 * _KB, 1 * _KB, "B"),
        "message_bytes.differential.absolute",
    ),
    Claim(
        "allocation_100_messages",
        _ALLOCATION,
        "100 messages with their two snapshots allocate",
        f"{_ACTOR}, Cumulative Load Analysis",
        Between(210 * _KB, 1_030 * _KB, "B"),
        "hundred_messages_bytes.full.absolute",
    ),
    Claim(
        "allocation_snapshot",
        _ALLOCATION,
        "A snapshot allocates",
        f"{_ACTOR}, Snapshot Persistence",
        Between(5 * _KB, 15 * _KB, "B"),
        "snapshot_bytes_allocated.full.absolute",
    ),
    Claim(
        "allocation_payload_count",
        _ALLOCATION,
        "Making or taking apart one cipher payload costs so many allocations",
        f"{_PAYLOAD}, Summary",
        Between(4, 5, "allocations"),
        "payload_blocks.absolute",
        "Of the payload alone: the message key, the ciphertext and the wire message.",
    ),
    Claim(
        "allocation_payload",
        _ALLOCATION,
        "Without copies a payload costs this much less",
        f"{_PAYLOAD}, Estimated Performance Gains",
        Less(0.60, 0.80),
        "payload_bytes.reused",
        "Encryption into a reused buffer against a fresh one, 1 KiB.",
    ),
    Claim(
        "allocation_handshake",
        _ALLOCATION,
        "A handshake makes this much in needless copies",
        f"{_ARRAYS}, Memory Impact Estimation",
        "about 2 KB",
        None,
        "Copies of .NET's ByteString; Python's protobuf makes others, at other places.",
    ),
    # --- Sizes ----------------------------------------------------------------------------------
    Claim(
        "size_state",
        _SIZE,
        "Written for every message",
        f"{_ACTOR}, Waste Ratio",
        Between(1_000, 5_000, "B"),
        "record_bytes.full.absolute",
    ),
    Claim(
        "size_identity",
        _SIZE,
        "Of it, the identity keys with ten one-time prekeys",
        f"{_STATE}, Memory Allocation Analysis",
        Between(900, 1_500, "B"),
        "channel_keys_bytes.absolute",
    ),
    Claim(
        "size_chains",
        _SIZE,
        "Of it, the two chains with their cached message keys",
        f"{_STATE}, Memory Allocation Analysis",
        Between(200, 3_200, "B"),
        "ratchet_bytes.absolute",
        "Used message keys are not kept here, as they must not be; only skipped ones are.",
    ),
    Claim(
        "size_change",
        _SIZE,
        "What really changes with a message",
        f"{_ACTOR}, What Actually Changes Per Message",
        Between(16, 48, "B"),
        "changed_bytes.absolute",
        "Values in the session that differ after a message: chain key, indexes, and on a turn"
        " the new keys.",
    ),
    Claim(
        "size_waste",
        _SIZE,
        "Share of what is written that did not change",
        f"{_ACTOR}, Waste Ratio",
        AtLeast(0.95),
        "waste_share.absolute",
    ),
    Claim(
        "size_differential",
        _SIZE,
        "Differential persistence writes this much less",
        f"{_ACTOR}, Optimization Strategies",
        Less(0.95, 0.98),
        "record_bytes.differential",
    ),
    Claim(
        "size_differential_state",
        _SIZE,
        "The audit's own change record would hold",
        f"{_ACTOR}, Differential Persistence",
        Between(16, 48, "B"),
        "record_bytes.differential.absolute",
        "Its sketch holds no chain or root key; recovery has to derive them, as ours does.",
    ),
    # --- Serialising ----------------------------------------------------------------------------
    Claim(
        "serialise_before",
        _SERIALISING,
        "Whole states serialised each second, before",
        f"{_BENCHMARKS}, Current Performance",
        Between(1_000, 5_000, "operations/s"),
        "serialisations.full.absolute",
    ),
    Claim(
        "serialise_gain",
        _SERIALISING,
        "State serialisation becomes faster by",
        _BENCHMARKS,
        More(10.0),
        "serialisations.differential",
    ),
    Claim(
        "serialise_cpu",
        _SERIALISING,
        "CPU spent on serialising falls by",
        f"{_ACTOR}, With Differential Persistence",
        Less(0.90, 0.95),
        "serialisation_seconds.differential",
    ),
    Claim(
        "serialise_snapshots",
        _SERIALISING,
        "Serialising snapshots costs this much less when they are made from changes",
        f"{_ACTOR}, Lazy Snapshot Creation",
        "-80% to -90%",
        None,
        "A snapshot is a whole state whatever it is made from; there is no such strategy.",
    ),
    Claim(
        "encrypt_gain",
        _SERIALISING,
        "Encryption itself becomes faster by",
        _BENCHMARKS,
        More(1.0),
        "encryptions.reused",
        "One encryption into a reused buffer against one into fresh memory, 1 KiB, key schedule"
        " included.",
    ),
    # --- Throughput, latency, CPU ---------------------------------------------------------------
    Claim(
        "throughput_cached",
        _SPEED,
        "Throughput with caching alone",
        _ROADMAP,
        More(0.20, 0.30),
        "messages_per_second.cached",
    ),
    Claim(
        "throughput_differential",
        _SPEED,
        "Throughput with differential persistence",
        _ROADMAP,
        More(1.0, 2.0),
        "messages_per_second.differential",
    ),
    Claim(
        "throughput_kpi",
        _SPEED,
        "Message throughput, all measures taken",
        f"{_KPI}, Technical KPIs",
        More(2.0),
        "messages_per_second.differential",
    ),
    Claim(
        "throughput_full_optimisation",
        _SPEED,
        "Throughput under high load, state serialisation optimised in full",
        f"{_STATE}, With Full Optimization",
        More(0.30, 0.50),
        "messages_per_second.differential",
    ),
    Claim(
        "throughput_payload",
        _SPEED,
        "Throughput with caching and a payload without copies",
        _ROADMAP,
        "+40% to +60%",
        None,
        "The service has no second way to make payloads; see the payload's own rows.",
    ),
    Claim(
        "p99",
        _SPEED,
        "p99 latency improves by",
        f"{_KPI}, Technical KPIs",
        Less(0.70),
        "p99_ms.differential",
        "At the same open-loop rate, one that `full` bears.",
    ),
    Claim(
        "p99_saturated",
        _SPEED,
        "p99 latency, two to five times better",
        f"{_ROI}, Expected Returns",
        Less(0.50, 0.80),
        "p99_saturated_ms.differential",
        "In a closed loop at saturation, where it follows from throughput.",
    ),
    Claim(
        "cpu",
        _SPEED,
        "CPU for a message falls by",
        f"{_ROADMAP}, System-Wide Impact",
        Less(0.20, 0.40),
        "cpu_seconds_per_1000_messages.differential",
    ),
    # --- GC -------------------------------------------------------------------------------------
    Claim(
        "gc_collections",
        _GC,
        "Collections become rarer by",
        f"{_KPI}, Technical KPIs",
        Less(0.80),
        "gc_collections_per_1000_messages.differential",
        "CPython frees by reference counts; its collector only looks for cycles.",
    ),
    Claim(
        "gc_pause_share",
        _GC,
        "Time spent in collections, by the same",
        f"{_KPI}, Technical KPIs",
        Less(0.80),
        "gc_pause_share.differential",
    ),
    # --- Disk -----------------------------------------------------------------------------------
    Claim(
        "disk",
        _DISK,
        "Bytes written to disk fall by",
        f"{_ACTOR}, With Differential Persistence",
        Less(0.85, 0.90),
        "disk_write_bytes_per_message.differential",
    ),
    # --- Recovery -------------------------------------------------------------------------------
    Claim(
        "recovery",
        _RECOVERY,
        "Recovery time falls by",
        f"{_ACTOR}, With Differential Persistence",
        Less(0.70, 0.80),
        "restore_seconds.differential",
    ),
    # --- Capacity -------------------------------------------------------------------------------
    Claim(
        "capacity",
        _SCALE,
        "Concurrent users at the same service",
        f"{_KPI}, Business KPIs",
        More(3.0, 5.0),
        "channels_within_objective.differential",
        "Channels at a fixed rate each, raised until p99 breaks the objective.",
    ),
    Claim(
        "capacity_connections",
        _SCALE,
        "Concurrent connections, two to five times as many",
        f"{_ROADMAP}, System-Wide Impact",
        More(1.0, 4.0),
        "channels_within_objective.differential",
    ),
    Claim(
        "capacity_conclusion",
        _SCALE,
        "Concurrent users on the same hardware, five to ten times as many",
        "Executive Summary, Conclusion",
        More(4.0, 9.0),
        "channels_within_objective.differential",
    ),
    Claim(
        "load_100000",
        _SCALE,
        "Pressure at 100,000 messages/s",
        f"{_PAYLOAD}, High-Throughput Scenarios",
        "20 to 400 MB/s",
        None,
        "No strategy gets there in one process; the audited server could not either, since its"
        " router awaits each operation (see the last row of the effects it missed).",
    ),
    Claim(
        "pressure_10000",
        _SCALE,
        "Bytes allocated each second at 10,000 messages/s, state persistence alone",
        f"{_STATE}, Performance Impact Under Load",
        Between(10e6, 50e6, "B/s"),
        "persistence_pressure_10000.full.absolute",
        "Measured for a message, times 10,000.",
    ),
    # --- Elsewhere ------------------------------------------------------------------------------
    Claim(
        "call_sites",
        _ELSEWHERE,
        "39 and 32 places that copy byte strings",
        f"{_ARRAYS}; {_COPIES}",
        "39 and 32",
        None,
        "Counts of the audited code's lines.",
    ),
    Claim(
        "server_cost",
        _ELSEWHERE,
        "Cost of servers",
        f"{_KPI}, Business KPIs",
        "-50% to -70%",
        None,
        "Money follows from capacity, and from prices.",
    ),
    Claim(
        "reliability",
        _ELSEWHERE,
        "System reliability",
        f"{_KPI}, Business KPIs",
        "99.99 % uptime",
        None,
        "A matter of years and of operation; what crashes lose is tested, not timed.",
    ),
    Claim(
        "effort",
        _ELSEWHERE,
        "Effort of all three phases",
        f"{_ROI}, Development Investment",
        "22 weeks",
        None,
        "An estimate of work, not of software.",
    ),
)
