"""The audit: its claims, its figures, its search, its report, and all of it once for real."""

from pathlib import Path

import pytest

from connect_actor.stored.v1 import session_pb2 as stored
from connect_loadgen import cli
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.figures import FIGURES
from connect_loadgen.experiment.results import Round, Side
from connect_loadgen.experiments import audit
from connect_loadgen.experiments.audit import SHAPES, Shape, claims, in_process, rows_of_claims
from connect_loadgen.probes.capacity import CHANNELS, Tried, search
from connect_loadgen.probes.changed import changed_bytes
from connect_loadgen.probes.in_process import MicroRound, measure_round
from tests.support.compiler import needs_hook
from tests.support.results import load, read, require_sound, round_of, sides_of


@pytest.fixture(scope="module")
def micro() -> list[MicroRound]:
    return [measure_round()]


@pytest.fixture(scope="module")
def sides(micro: list[MicroRound]) -> dict[str, Side]:
    rates = {"full": 1_000.0, "cached": 1_250.0, "differential": 3_000.0, "memory": 4_000.0}
    done = {name: [round_of(name, 1, load(rate))] for name, rate in rates.items()}
    borne = {"full": 100, "cached": 150, "differential": 450}
    return sides_of(
        {
            "in process": [in_process(each) for each in micro],
            **{f"saturated/{name}": turns for name, turns in done.items()},
            **{f"paced/{name}": done[name] for name in borne},
            **{
                f"capacity/{name}": [Round(figures={CHANNELS: channels})]
                for name, channels in borne.items()
            },
        }
    )


# --- Claims and verdicts --------------------------------------------------------------------------


@needs_hook
def test_every_claim_that_can_be_measured_has_its_figure(sides: dict[str, Side]) -> None:
    asked = {
        (each.side, each.figure)
        for claim in claims()
        if claim.bound is not None
        for each in claim.judged
    }
    assert [
        (side, figure)
        for side, figure in sorted(asked)
        if sides[side].rounds[0].figures.get(figure) is None
    ] == []


def test_claims_have_names_of_their_own_and_reasons_where_they_need_them() -> None:
    assert len({claim.name for claim in claims()}) == len(claims())
    for claim in claims():
        assert (claim.measured.figure == "") == (claim.bound is None), claim.name
        assert claim.bound is not None or claim.remark, claim.name
        is_ratio = claim.bound is not None and claim.bound.of == "ratio"
        assert (claim.reference is not None) == is_ratio, claim.name


def test_a_row_shows_the_figure_it_is_judged_by(sides: dict[str, Side]) -> None:
    rows = {row.name: row for row in rows_of_claims(sides)}
    capacity = rows["capacity"]
    assert capacity.ratio is not None
    assert capacity.ratio.median == 4.5
    assert capacity.verdict is Verdict.HOLDS
    assert rows["capacity_conclusion"].verdict is Verdict.PARTLY
    throughput = rows["throughput_cached"].ratio
    assert throughput is not None
    assert throughput.median == 1.25


def test_a_figure_that_is_not_known_gives_no_verdict() -> None:
    rows = rows_of_claims({})
    assert {row.verdict for row in rows} == {Verdict.NOT_MEASURED, Verdict.NOT_MEASURABLE}
    assert all(row.remark for row in rows)
    left_out = rows_of_claims({}, is_complete=False)
    assert {row.verdict for row in left_out} == {Verdict.LEFT_OUT, Verdict.NOT_MEASURABLE}


def test_the_awaiting_router_is_compared_with_the_forwarding_one() -> None:
    rows = rows_of_claims(
        sides_of(
            {
                "routers/forwarding": [round_of("full", 1, load(1_000.0))],
                "routers/awaiting": [round_of("full", 1, load(200.0))],
            }
        )
    )
    row = next(row for row in rows if row.name == "router_messages_per_second")
    assert row.ratio is not None
    assert row.ratio.median == 0.2


def test_every_figure_has_a_meaning_and_a_name_of_its_own() -> None:
    assert len({each.name for each in FIGURES}) == len(FIGURES)
    assert all(each.meaning.endswith(".") for each in FIGURES)


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

    async def probe(channels: int) -> Tried:
        tried.append(channels)
        return Tried(channels, channels <= limit)

    found = (await search(probe, start=100)).figures
    channels = found[CHANNELS] or 0
    assert channels <= limit
    assert channels * 1.05 + 1 >= limit
    assert found["loads_tried"] == len(tried) == len(set(tried)) < 25


async def test_a_service_that_never_keeps_the_objective_bears_no_channel() -> None:
    async def probe(channels: int) -> Tried:
        return Tried(channels, keeps_objective=False)

    assert (await search(probe, start=50)).figures[CHANNELS] == 0


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
    monkeypatch.setattr(audit, "SHAPES", (held,))
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
    result = read(tmp_path / "audit.json")
    require_sound(code, result)
    assert [row.name for row in result.rows][: len(claims())] == [each.name for each in claims()]
    assert {row.verdict for row in result.rows} & {Verdict.HOLDS, Verdict.PARTLY}
    # What a busy machine bears is no matter of a test; that it was searched for is.
    for name in ("full", "cached", "differential"):
        assert result.sides[f"capacity/{name}"].rounds[0].figures["loads_tried"]
    figure = "record_bytes_per_message"
    for side in ("full", "differential"):
        for turn in result.sides[f"{held.name}/{side}"].valid:
            size = turn.figures[figure]
            assert size is not None
            assert size > 2_300 + 20 * 32 if side == "full" else size < 16
    page = (tmp_path / "audit.html").read_text()
    said = capsys.readouterr().out
    for row in result.rows:
        assert row.claimed in page
        assert row.verdict.value in said
    assert "Each claim" in page
    assert held.name in said
