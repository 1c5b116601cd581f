"""The reach command: its table on made-up figures, its parts, and a few rows for real."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from connect_actor.client import ConnectClient
from connect_actor.protocol import primitives
from connect_actor.protocol.primitives import KeyPair, SigningKey
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.cli import main
from connect_loadgen.drive.salvo import Gunner, MeasureError, fire
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.figures import round_of
from connect_loadgen.experiment.model import Asked, Probe, Quantity, judge
from connect_loadgen.experiment.numbers import Spread
from connect_loadgen.experiment.results import Recovery, Result, Round, Row, Side
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.experiments import reach
from connect_loadgen.experiments.reach import Group, ReachSettings, groups_of, parts_of
from connect_loadgen.probes.handshakes import OPERATIONS, costs_of_operations, count_operations
from connect_loadgen.probes.many_channels import round_of_recovery
from connect_loadgen.probes.planting import plant
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.blocks import (
    Bullets,
    Cell,
    Column,
    Page,
    Prose,
    Section,
    Table,
    missing,
)
from connect_loadgen.report.html import render
from connect_loadgen.report.markdown import render_markdown
from connect_loadgen.report.page import page_of
from connect_loadgen.service.bare import EchoEnd
from connect_loadgen.settings.load import load_settings
from tests.support.loads import PacedService, echo, failure
from tests.support.results import (
    WHEN,
    cost,
    environment,
    load,
    read,
    require_sound,
    show_result,
    write_result,
)

OURS = Quantity("ours", "rate")
THEIRS = Quantity("theirs", "rate")


def side(name: str, *values: float | None, failure: str | None = None, bound: int = 0) -> Side:
    """Return a side that showed these values, the first ``bound`` of them the generator's limit."""
    return Side(
        name=name,
        rounds=[
            Round(figures={"rate": value}, generator_bound=index < bound)
            for index, value in enumerate(values)
        ],
        failure=failure,
    )


def judged(
    ours: Side,
    theirs: Side | None = None,
    bound: Bound | None = None,
    beside: Sequence[Quantity] = (),
) -> Row:
    asked = Asked(
        "row",
        "What is measured",
        "things/s",
        OURS,
        None if theirs is None else THEIRS,
        "" if theirs is None else "theirs",
        bound,
        how="made up",
        beside=tuple(beside),
    )
    return judge(asked, {each.name: each for each in (ours, theirs) if each is not None})


def at_least(low: float) -> Bound:
    return Bound.at_least(low, "ratio")


# --- Judgement ------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_its_round_and_its_median_is_judged() -> None:
    ours, theirs = side("ours", 70, 300, 20), side("theirs", 100, 400, 10)
    result = judged(ours, theirs, at_least(0.75))
    assert result.ratio is not None
    assert (result.ratio.low, result.ratio.median, result.ratio.high) == (0.7, 0.75, 2)
    assert result.measured == Spread(median=70, low=20, high=300)
    assert result.reference == Spread(median=100, low=10, high=400)
    assert result.verdict is Verdict.HOLDS
    assert judged(ours, theirs, at_least(0.76)).verdict is Verdict.DOES_NOT_HOLD
    at_most = Bound.at_most(0.74, "ratio")
    assert judged(ours, theirs, at_most).verdict is Verdict.DOES_NOT_HOLD
    assert judged(ours, theirs).verdict is Verdict.NO_BOUND


def test_a_figure_may_stand_for_itself() -> None:
    result = judged(side("ours", 10), bound=Bound.at_least(5))
    assert (result.verdict, result.ratio, result.reference) == (Verdict.HOLDS, None, None)


def test_a_row_whose_side_failed_is_not_measured_and_says_why() -> None:
    failed = side("ours", 50, failure="ours, round 2: it died")
    result = judged(failed, side("theirs", 10, 10), at_least(0.1))
    assert (result.verdict, result.measured, result.ratio) == (Verdict.NOT_MEASURED, None, None)
    assert "ours, round 2: it died" in result.remark
    assert result.reference is not None, "what the other side showed is still shown"
    result = judged(
        side("ours", 10, 10), side("theirs", failure="theirs, round 1: no"), at_least(0.1)
    )
    assert result.verdict is Verdict.NOT_MEASURED
    assert "theirs, round 1: no" in result.remark


def test_a_figure_that_a_round_lacks_is_not_made_up() -> None:
    result = judged(side("ours", 1, None), bound=Bound.at_most(5))
    assert (result.verdict, result.measured) == (Verdict.NOT_MEASURED, None)
    assert result.remark == "ours has no rate"


def test_nothing_is_held_to_a_peer_of_nothing() -> None:
    result = judged(side("ours", 1), side("theirs", 0), at_least(1))
    assert result.verdict is Verdict.NOT_MEASURED
    assert "is 0" in result.remark


def test_a_remark_tells_figures_beside_and_that_the_generator_was_the_limit() -> None:
    result = judged(
        side("ours", 3, 4, 5, bound=2),
        side("theirs", 1, 1, 1),
        at_least(5),
        beside=[Quantity("theirs", "rate", "{} of theirs")],
    )
    assert result.remark == (
        "1 of theirs; the generator was the limit in 2 of 3 rounds, which are left out"
    )
    # Of three ratios the only one in which the service was the limit.
    assert result.measured == Spread(median=5, low=5, high=5)
    assert result.verdict is Verdict.HOLDS


def test_a_row_whose_every_round_the_generator_limited_has_no_verdict() -> None:
    for ours, theirs in (
        (side("ours", 3, 4, bound=2), side("theirs", 1, 1)),
        (side("ours", 3, 4), side("theirs", 1, 1, bound=2)),
    ):
        row = judged(ours, theirs, at_least(1))
        assert (row.verdict, row.measured, row.ratio) == (Verdict.NO_VERDICT, None, None)
        assert "was the limit" in row.remark
        result = result_of(REACHED, row)
        assert result.exit is Exit.INVALID
        assert result.notices == ["No verdict on row: the generator was the limit in every round"]
        assert result_of(row, UNMEASURED).exit is Exit.WRONG


# --- Rounds ---------------------------------------------------------------------------------------


def probes_of(calls: list[str], failing: Mapping[str, int]) -> list[Probe]:
    """Return three probes that note their calls and fail in the round given."""

    def probe_of(name: str) -> Probe:
        async def measure(_: object) -> Round:
            calls.append(name)
            await asyncio.sleep(0)
            if failing.get(name) == calls.count(name):
                raise MeasureError("first line\nof a log\n  the cause")
            return Round(figures={"rate": float(calls.count(name))})

        return Probe(name, measure)

    return [probe_of(name) for name in "abc"]


async def turns(
    calls: list[str], failing: Mapping[str, int], seed: int = 1, *, is_tolerant: bool = True
) -> list[Side]:
    with CommandProgress() as progress:
        taken = Turns(seed, progress, is_tolerant=is_tolerant)
        return list((await taken.take("", probes_of(calls, failing), 3)).values())


async def test_every_side_has_its_turn_in_every_round() -> None:
    calls: list[str] = []
    results = await turns(calls, {})
    assert [set(calls[first : first + 3]) for first in (0, 3, 6)] == [set("abc")] * 3
    assert [each.name for each in results] == ["a", "b", "c"]
    assert all([seen.figures["rate"] for seen in each.rounds] == [1, 2, 3] for each in results)
    others: list[str] = []
    await turns(others, {}, seed=2)
    assert others != calls


async def test_what_has_failed_is_not_tried_again_and_takes_nothing_from_the_others() -> None:
    calls: list[str] = []
    first, failed, third = await turns(calls, {"b": 2})
    assert Counter(calls) == {"a": 3, "b": 2, "c": 3}
    assert failed.failure == "b, round 2: first line: the cause"
    assert first.failure is third.failure is None
    assert len(first.rounds) == len(third.rounds) == 3


async def test_where_sides_belong_together_the_first_failure_ends_the_command() -> None:
    with pytest.raises(MeasureError, match="first line"):
        await turns([], {"b": 2}, is_tolerant=False)


# --- The table ------------------------------------------------------------------------------------

GOALS = {
    "durable": "ratio >= 0.700",
    "cpu-64": "<= 25.0",
    "cpu-256": "<= 15.0",
    "cpu-256-skewed": "<= 15.0",
    "decrypt": "ratio >= 0.800",
    "decrypt-cpu": "ratio <= 1.25",
    "decrypt-reordered": "ratio >= 0.800",
    "decrypt-reordered-cpu": "ratio <= 1.25",
    "unary": "ratio >= 0.700",
    "unary-cpu": None,
    "differential-rate": "ratio >= 3.00",
    "differential-p99": "ratio <= 0.300",
    "differential-cpu": "ratio <= 0.400",
    "differential-allocated": "ratio <= 0.100",
    "one-channel": ">= 10,000",
    "establish": "ratio >= 0.500",
    "establish-cpu": "ratio <= 2.00",
    "many-live": "ratio <= 1.50",
    "idle-memory": "<= 10.0",
    "passivated-memory": "<= 0.100",
    "recovery-killed": ">= 5,000",
    "recovery-stopped": ">= 5,000",
    "workers": "ratio >= 1.70",
    "workers-cpu": "ratio <= 1.18",
}


def groups(**told: object) -> list[Group]:
    return groups_of(ReachSettings.model_validate(told))


def test_every_row_is_held_to_what_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    rows = [row for group in groups() for row in group.rows]
    assert {row.name: row.bound and str(row.bound) for row in rows} == GOALS


def test_workers_that_have_no_cores_are_held_to_their_cpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    goals = {row.name: row.bound for group in groups() for row in group.rows}
    assert goals["workers"] is None
    assert goals["workers-cpu"] is not None


def test_a_group_measures_only_what_its_chosen_rows_need() -> None:
    decrypting = next(group for group in groups() if group.name == "decrypting")
    chosen = [row for row in decrypting.rows if row.name == "decrypt"]
    assert {side.name for side in decrypting.needed_by(chosen)} == {"encrypts", "in order"}
    for group in groups():
        names = [probe.name for probe in group.probes]
        assert len(set(names)) == len(names)
        assert {side.name for side in group.needed_by(group.rows)} == set(names)


def test_rows_are_chosen_by_parts_of_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reach", "--list", "--only=unary,recovery-*"]) == 0
    assert capsys.readouterr().out.split() == [
        "unary",
        "unary-cpu",
        "recovery-killed",
        "recovery-stopped",
    ]
    assert main(["reach", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(GOALS)
    assert main(["reach", "--only=unary,nonsense"]) == Exit.CONFIGURATION
    assert "nonsense" in capsys.readouterr().err


def test_what_is_meant_for_another_command_changes_no_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOADGEN_TRANSPORT", "unary")
    monkeypatch.setenv("LOADGEN_CHURN_RATE", "5")
    settings = load_settings(ReachSettings, ["--channels=7", "--payload-bytes=16"])
    made = settings.load(out_of_order=0.25)
    assert (made.channels, made.payload_bytes, made.out_of_order) == (7, "16", 0.25)
    assert (made.transport, made.churn_rate, made.decrypt_weight) == ("stream", 0, 0)


def test_a_quick_run_is_small_and_flags_still_win() -> None:
    quick = ReachSettings.model_validate({"quick": True, "rounds": 4})
    assert (quick.rounds, quick.live_channels) == (4, 10_000)
    assert ReachSettings.model_validate({}).live_channels == 100_000


# --- What sides show ------------------------------------------------------------------------------


def test_a_load_shows_its_cost_by_message() -> None:
    figures = reach._required(round_of(load(2_000.0), cost(), None)).figures
    assert figures["messages_per_second"] == 2_000
    assert figures["cpu_us"] == pytest.approx(125)
    assert figures["allocated_bytes_per_message"] == 5_000
    assert figures["p99_ms"] == pytest.approx(40, rel=0.01)
    assert not round_of(load(), cost(), None).generator_bound
    assert round_of(load(generator_warnings=["late"]), cost(), None).generator_bound


def test_figures_of_a_load_that_was_not_served_are_refused() -> None:
    with pytest.raises(MeasureError, match="2 answers were WRONG"):
        reach._required(round_of(load(wrong=2), cost(), None))
    with pytest.raises(MeasureError, match="UNAVAILABLE"):
        reach._required(round_of(load(errors={"UNAVAILABLE": 3}), cost(), None))


def recovery(*, verified: int = 20, cpu: float | None = 0.01) -> Recovery:
    return Recovery(
        channels=20,
        start_seconds=1,
        restore_seconds=0.5,
        channels_per_second=40,
        verified_channels=verified,
        restore_cpu_seconds=cpu,
        replayed_records=50,
    )


def test_a_recovery_is_judged_by_the_channels_of_a_core_second() -> None:
    figures = round_of_recovery(recovery()).figures
    assert figures["per_core_second"] == pytest.approx(2_000)
    assert (figures["per_second"], figures["replayed_records"]) == (40, 2.5)
    assert round_of_recovery(recovery(cpu=None)).figures["per_core_second"] is None
    with pytest.raises(MeasureError, match="only 19 of 20"):
        round_of_recovery(recovery(verified=19))


def test_the_cryptography_of_a_handshake_is_counted_and_left_as_it_was() -> None:
    before = (SigningKey.sign, primitives.verify, primitives.hkdf, vars(KeyPair)["exchange"])
    counted = count_operations()
    assert counted["Ed25519 signatures"] == counted["Ed25519 verifications"] == 1
    # The bundle's: an identity, a signed prekey and ten one-time prekeys.
    assert counted["X25519 key pairs"] == 12
    # X3DH's four; what the ratchet begins with comes on top.
    assert counted["X25519 exchanges"] >= 4
    assert counted["HKDFs"] >= 2
    assert set(counted) == set(OPERATIONS)
    after = (SigningKey.sign, primitives.verify, primitives.hkdf, vars(KeyPair)["exchange"])
    assert after == before
    assert count_operations() == counted


def test_cryptography_that_is_not_seen_is_no_cryptography_that_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verify = primitives.verify
    monkeypatch.setattr(
        "connect_actor.protocol.keys.primitives", _Hidden(primitives, verify=verify)
    )
    with pytest.raises(MeasureError, match="no Ed25519 verifications seen"):
        count_operations()


class _Hidden:
    """A module some of whose functions are out of sight of who counts them."""

    def __init__(self, module: object, **functions: object) -> None:
        self._module = module
        vars(self).update(functions)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def test_each_operation_has_its_cost() -> None:
    costs = costs_of_operations(calls=3)
    assert list(costs) == list(OPERATIONS)
    assert all(costs.values())


def test_an_echo_gives_back_what_was_sent() -> None:
    end = EchoEnd(1)
    assert end.open(end.seal(b"hello")) == b"hello"


async def test_planted_channels_are_many_and_each_has_an_end_of_its_own(tmp_path: Path) -> None:
    planted = plant(tmp_path, 3)
    async with ConnectClient("127.0.0.1:1") as client:
        first, second, third = planted.ends(client)
    assert [each.connect_id for each in (first, second, third)] == [1, 2, 3]
    assert first.channel.session is not second.channel.session
    first.seal(b"")
    assert second.seal(b"").ratchet_index == 0
    (flag,) = planted.flags
    keys = Path(flag.partition("=")[2])
    assert keys.stat().st_mode & 0o077 == 0  # noqa: ASYNC240 - nothing else runs here
    assert planted.key.hex() not in repr(planted)


# --- Salvos ---------------------------------------------------------------------------------------


def gunner(service: PacedService, **told: object) -> Gunner:
    ends = [EchoEnd(connect_id) for connect_id in (1, 2, 3)]
    settings = ReachSettings.model_validate({"channels": len(ends), "payload_bytes": "16"})
    return Gunner(service, ends, settings.load(**told))


def garbled(operation: wire.Operation) -> wire.OperationResult:
    answer = echo(operation)
    answer.encrypt.payload.ciphertext += b"x"
    return answer


def answered(operation: wire.Operation) -> wire.OperationResult:
    """Answer as a bare server does."""
    answer = echo(operation)
    answer.encrypt.payload.ciphertext += bytes(16)
    return answer


async def test_a_salvo_is_sent_whole_and_never_more_of_it_than_may_be_in_flight() -> None:
    service = PacedService(batch=8, answer=answered)
    guns = gunner(service)
    for messages, last in ((100, 4), (24, 8)):
        service.batches.clear()
        salvo = guns.load(messages, 20)
        fired = await fire([salvo], 10)
        salvo.check()
        assert fired.messages == messages
        assert sum(map(len, service.batches)) == messages
        assert len(service.batches[-1]) == last
    # Two whole frames and the last one; three whole ones would be more.
    assert service.most_unanswered == 20


async def test_nothing_is_looked_at_before_all_is_over() -> None:
    service = PacedService(batch=8, answer=garbled)
    salvo = gunner(service).load(16, 8)
    assert (await fire([salvo], 10)).messages == 16
    with pytest.raises(MeasureError, match="WRONG"):
        salvo.check()


async def test_an_operation_that_failed_is_told_by_its_status() -> None:
    service = PacedService(batch=8, answer=lambda operation: failure(operation, 8))
    salvo = gunner(service).load(8, 8)
    await fire([salvo], 10)
    with pytest.raises(MeasureError, match="RESOURCE_EXHAUSTED"):
        salvo.check()


async def test_messages_that_are_held_back_are_sent_with_the_others() -> None:
    service = PacedService(batch=8, answer=echoed)
    guns = gunner(service, encrypt_weight=0.0, decrypt_weight=1.0, out_of_order=0.5)
    salvo = guns.load(100, 16)
    assert salvo.messages > 100, "what still waits for later ones is not left out"
    await fire([salvo], 10)
    salvo.check()
    ids = [operation.operation_id for batch in service.batches for operation in batch]
    assert len(set(ids)) == len(ids) == salvo.messages


def echoed(operation: wire.Operation) -> wire.OperationResult:
    answer = echo(operation)
    answer.decrypt.plaintext = answer.decrypt.plaintext[:-16]
    return answer


async def test_a_transport_that_fails_ends_a_salvo() -> None:
    def break_down(_: wire.Operation) -> None:
        service.fail(TransportError("it broke"))

    service = PacedService(batch=8, answer=break_down)
    with pytest.raises(TransportError, match="it broke"):
        await fire([gunner(service).load(800, 8)], 10)
    assert len(service.batches) == 1


# --- The report -----------------------------------------------------------------------------------


def result_of(*rows: Row) -> Result[None]:
    return Result[None](
        command="reach",
        started_at=WHEN,
        seconds=90,
        settings={},
        environment=environment(),
        sides={"ours": side("ours", 1)},
        detail=None,
        **parts_of(rows),
    )


REACHED = judged(side("ours", 8), side("theirs", 10), at_least(0.8))
NOT_REACHED = judged(side("ours", 7), side("theirs", 10), at_least(0.8))
UNMEASURED = judged(
    side("ours", failure="ours, round 1: no | such flag"), side("theirs", 10), at_least(0.8)
)


def test_what_is_not_reached_is_an_ordinary_outcome_and_what_is_not_measured_is_none(
    tmp_path: Path,
) -> None:
    settings = ReachSettings.model_validate({"output": tmp_path})
    console = Console(file=(tmp_path / "shown").open("w"), width=250)
    for result, code in (
        (result_of(REACHED, NOT_REACHED), Exit.RIGHT),
        (result_of(REACHED, UNMEASURED), Exit.WRONG),
    ):
        assert result.exit is code
        write_result("reach", result, settings)
        show_result("reach", result, console)
    console.file.close()
    shown = (tmp_path / "shown").read_text()
    assert "Of 2 rows: 1 hold, 1 do not hold." in shown
    assert "Of 2 rows: 1 hold, 1 not measured." in shown
    assert "no | such flag" in shown
    assert read(tmp_path / "reach.json") == result_of(REACHED, UNMEASURED)
    assert "0.80 [0.80, 0.80]" in (tmp_path / "reach.md").read_text()


def test_the_page_says_the_same_in_html_and_in_markdown() -> None:
    page = page_of(result_of(REACHED, NOT_REACHED, UNMEASURED), reach.LOOK)
    html, markdown = render(page), render_markdown(page)
    for text in (html, markdown):
        assert "does not hold" in text
        assert "0.70 [0.70, 0.70]" in text
        # By which name --only takes it, and what stands there.
        assert "row" in text
        assert "theirs: 10 things/s" in text
        assert "redelivery_window 0" in text


def test_markdown_keeps_every_cell_in_its_column() -> None:
    table = Table(
        title="Figures",
        columns=(Column("What", is_text=True), Column("Rate", "things/s")),
        rows=((Cell("a|b"), Cell("5")), (Cell("c"), missing("nobody knows"))),
        notes=("Made up.",),
    )
    section = Section("s", "All", (Prose("Hello."), Bullets(("one", "two")), table))
    page = Page("Title", "when", (section,))
    assert render_markdown(page) == (
        "# Title\n\nwhen\n\n## All\n\nHello.\n\n- one\n- two\n\n"
        "| What | Rate, things/s |\n| --- | ---: |\n| a\\|b | 5 |\n| c | - |\n"
        "\nMade up.\n\n-: nobody knows\n"
    )


# --- For real -------------------------------------------------------------------------------------


def test_a_few_rows_are_measured_for_real(tmp_path: Path) -> None:
    rows = ("unary-cpu", "establish", "many-live", "idle-memory", "recovery-killed")
    code = main(
        [
            "reach",
            f"--only={','.join(rows)}",
            "--rounds=1",
            "--channels=5",
            "--messages=1000",
            "--live-channels=20",
            "--restored-channels=200",
            "--established-channels=100",
            "--idle-channels=100",
            "--warm-up-seconds=0",
            "--duration-seconds=0.2",
            f"--output={tmp_path}",
        ]
    )
    result = read(tmp_path / "reach.json")
    require_sound(code, result)
    # "establish" is a part of the other's name, too.
    assert {row.name for row in result.rows} == {*rows, "establish-cpu"}
    assert all(row.verdict is not Verdict.NOT_MEASURED for row in result.rows)
    assert all(row.how for row in result.rows)
    for row in result.rows:
        if row.verdict is not Verdict.NO_VERDICT:
            assert row.measured is not None
            assert row.measured.median > 0
    sides = {name.partition("/")[2]: each for name, each in result.sides.items()}
    assert set(sides) == {
        *("unary", "echo"),
        *("handshakes", "limit"),
        *("many", "few"),
        "memory",
        "killed",
    }
    assert all(len(each.rounds) == 1 and each.failure is None for each in sides.values())
    # Nothing was snapshot since: whatever was done to a channel is replayed.
    replayed = [seen.figures["replayed_records"] for seen in sides["killed"].rounds]
    assert all(each is not None and each >= 12 for each in replayed)
    table = (tmp_path / "reach.md").read_text()
    assert all(f"| {row.name} | {row.text} |" in table for row in result.rows)


def test_a_service_that_does_not_start_leaves_its_rows_unmeasured(tmp_path: Path) -> None:
    code = main(
        ["reach", "--only=durable", "--service-command=false", f"--output={tmp_path}"],
    )
    assert code == 1
    (row,) = read(tmp_path / "reach.json").rows
    assert row.verdict is Verdict.NOT_MEASURED
    assert "did not start" in row.remark
