"""The audit: its claims, its figures, its search, its report, and all of it once for real."""

import json
from pathlib import Path

import pytest

from connect_actor.stored.v1 import session_pb2 as stored
from connect_loadgen import cli
from connect_loadgen.audit import command
from connect_loadgen.audit.changed import changed_bytes
from connect_loadgen.audit.claims import CLAIMS
from connect_loadgen.audit.figures import FigureBook
from connect_loadgen.audit.micro import MicroRound, measure_round
from connect_loadgen.audit.results import AuditResult, CapacityProbe, CapacitySearch
from connect_loadgen.audit.rows import AWAITING, FORWARDING, claim_rows, missed_rows
from connect_loadgen.audit.shapes import SHAPES, Shape
from connect_loadgen.experiment.verdicts import Verdict
from connect_loadgen.probes.capacity import search
from tests.support.compiler import needs_hook
from tests.support.results import load, require_sound, round_of


@pytest.fixture(scope="module")
def micro() -> list[MicroRound]:
    return [measure_round()]


@pytest.fixture(scope="module")
def figures(micro: list[MicroRound]) -> FigureBook:
    rates = {"full": 1_000.0, "cached": 1_250.0, "differential": 3_000.0, "memory": 4_000.0}
    done = {name: [round_of(name, 1, load(rate))] for name, rate in rates.items()}
    del (paced := dict(done))["memory"]
    book = FigureBook()
    book.add_micro(micro)
    book.add_saturated(done)
    book.add_paced(paced)
    book.add_capacity(
        {
            name: [CapacitySearch(channels=channels, probes=[])]
            for name, channels in (("full", 100), ("cached", 150), ("differential", 450))
        }
    )
    return book


# --- Claims and verdicts --------------------------------------------------------------------------


@needs_hook
def test_every_claim_that_can_be_measured_has_its_figure(figures: FigureBook) -> None:
    asked = {claim.figure for claim in CLAIMS if claim.figure is not None}
    assert [name for name in sorted(asked) if name not in figures] == []


def test_claims_have_names_of_their_own_and_reasons_where_they_need_them() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert (claim.figure is None) == isinstance(claim.expected, str), claim.name
        assert claim.figure is not None or claim.remark, claim.name


def test_a_row_shows_the_figure_it_is_judged_by(figures: FigureBook) -> None:
    rows = {row.name: row for row in claim_rows(figures)}
    capacity = rows["capacity"]
    assert capacity.measured is not None
    assert capacity.measured.spread.median == 4.5
    assert capacity.verdict == Verdict.HOLDS.value
    assert rows["capacity_conclusion"].verdict == Verdict.PARTLY.value
    throughput = rows["throughput_cached"].measured
    assert throughput is not None
    assert throughput.spread.median == 1.25


def test_a_figure_that_could_not_be_had_gives_no_verdict() -> None:
    rows = claim_rows(FigureBook())
    assert {row.verdict for row in rows} == {Verdict.NOT_MEASURABLE.value}
    assert all(row.remark for row in rows)


def test_the_awaiting_router_is_compared_with_the_forwarding_one() -> None:
    rows = missed_rows(
        {
            FORWARDING: [round_of("full", 1, load(1_000.0))],
            AWAITING: [round_of("full", 1, load(200.0))],
        }
    )
    assert rows[0].measured is not None
    assert rows[0].measured.spread.median == 0.2


# --- Within one process ---------------------------------------------------------------------------


@needs_hook
def test_what_each_strategy_writes_and_allocates_is_what_it_must_be(
    micro: list[MicroRound],
) -> None:
    full, cached, differential = (
        micro[0].strategies[name] for name in ("full", "cached", "differential")
    )
    assert full.record_bytes == cached.record_bytes == pytest.approx(micro[0].state_bytes, rel=0.01)
    assert differential.record_bytes < 16
    assert full.record is not None
    assert cached.record is not None
    assert differential.record is not None
    assert full.record.bytes > cached.record.bytes > differential.record.bytes > 0
    assert full.record.blocks > cached.record.blocks > differential.record.blocks >= 1
    assert full.message is not None
    assert full.message.bytes > full.record.bytes


@needs_hook
def test_a_reused_buffer_allocates_less_than_a_ciphertext(micro: list[MicroRound]) -> None:
    fresh, reused = micro[0].fresh, micro[0].reused
    assert fresh is not None
    assert reused is not None
    assert fresh.bytes > 1_024 > reused.bytes


def test_only_values_that_differ_count_as_changed() -> None:
    before = stored.RatchetState(root_key=bytes(32), receiving_turns=3)
    before.sending.chain_key = bytes(32)
    before.sending.next_index = 7
    after = stored.RatchetState.FromString(before.SerializeToString())
    assert changed_bytes(before, after) == 0
    after.sending.chain_key = b"\1" * 32
    after.sending.next_index = 200
    assert changed_bytes(before, after) == 32 + 2
    after.skipped.add(number=1, ratchet_key=b"\2" * 32).keys.add(index=5, message_key=bytes(32))
    assert changed_bytes(before, after) == 34 + 1 + 32 + 1 + 32


# --- Capacity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 37, 100, 999, 12_345])
async def test_the_search_finds_the_limit_to_a_twentieth(limit: int) -> None:
    tried: list[int] = []

    async def probe(channels: int) -> CapacityProbe:
        tried.append(channels)
        return CapacityProbe(
            channels=channels, rate=1.0, p99_ms=1.0, skipped=0, keeps_objective=channels <= limit
        )

    found = await search(probe, start=100)
    assert found.channels <= limit
    assert found.channels * 1.05 + 1 >= limit
    assert [probe.channels for probe in found.probes] == tried
    assert len(tried) == len(set(tried)) < 25


async def test_a_service_that_never_keeps_the_objective_bears_no_channel() -> None:
    async def probe(channels: int) -> CapacityProbe:
        return CapacityProbe(
            channels=channels, rate=1.0, p99_ms=None, skipped=0, keeps_objective=False
        )

    assert (await search(probe, start=50)).channels == 0


# --- All of it ------------------------------------------------------------------------------------


def test_shapes_change_one_thing_at_a_time() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    for axis in {shape.axis for shape in SHAPES} - {"usual"}:
        of_axis = [shape for shape in SHAPES if shape.axis == axis]
        assert len(of_axis) >= 2, axis
        changed = {frozenset(shape.load) for shape in of_axis}
        assert len(changed) == 1, axis


def test_an_audit_runs_from_claims_to_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Shape("skipped keys held", "20", {"skipped_keys": 20}, dh_ratchet_every=1_000_000)
    monkeypatch.setattr(command, "SHAPES", (held,))
    code = cli.main(
        [
            "audit",
            "--channels=4",
            "--rounds=1",
            "--concurrency=64",
            "--frame-operations=16",
            "--warm-up-seconds=0",
            "--duration-seconds=0.25",
            "--p99-objective-ms=500",
            "--channel-rate=200",
            f"--output={tmp_path}",
        ]
    )
    result = AuditResult.model_validate_json((tmp_path / "audit.json").read_text())
    require_sound(code, result)
    assert [row.name for row in result.rows] == [claim.name for claim in CLAIMS]
    judged = {row.verdict for row in result.rows} - {Verdict.NOT_MEASURABLE.value}
    assert judged
    # What a busy machine bears is no matter of a test; that it was searched for is.
    assert all(searches[0].probes for searches in result.capacity.values())
    sizes = {
        name: summary.figures["record_bytes_per_message"]
        for name, summary in result.shapes[0].variants.items()
        if not summary.rounds_left_out
    }
    if (full := sizes.get("full")) is not None:
        assert full.median > 2_300 + 20 * 32
    if (differential := sizes.get("differential")) is not None:
        assert differential.median < 16
    page = (tmp_path / "audit.html").read_text()
    said = capsys.readouterr().out
    for row in result.rows:
        assert row.claimed in page
        assert row.verdict in said
    assert json.loads((tmp_path / "audit.json").read_text())["schema_version"].endswith("audit/1")
