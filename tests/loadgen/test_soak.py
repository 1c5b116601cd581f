"""Whether a soak is told a leak from a flat line; on made-up samples, and once for real."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from connect_loadgen.cli import main
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.numbers import ratio_to
from connect_loadgen.experiment.results import Row
from connect_loadgen.experiment.trend import trend_of
from connect_loadgen.experiments.soak import (
    SoakDetail,
    SoakSample,
    SoakSettings,
    judge_ageing,
    judge_load,
    judge_samples,
)
from connect_loadgen.probes.ageing import Ageing
from connect_loadgen.program.exits import Exit
from tests.support.results import read

MEBI = 2**20
HOUR = 3_600.0
SETTINGS = SoakSettings.model_validate({})

RSS = "Memory (RSS): growth"
DESCRIPTORS = "File descriptors: growth"
THREADS = "Threads: growth"
JOURNAL = "Journal (database and WAL at its largest): growth"
CPU = "CPU of an operation: growth"
P99 = "p99 from the due time: growth"


def sample(at: float, **changed: float) -> SoakSample:
    values: dict[str, object] = {
        "at_seconds": at,
        "rss_bytes": 100 * MEBI,
        "descriptors": 30,
        "threads": 10,
        "database_bytes": 20 * MEBI,
        "wal_bytes": 4 * MEBI,
        "live_actors": 500,
        "streams_open": 2,
        "cpu_share": 0.5,
        "gc_collections": 1,
        "gc_pause_seconds": 0.1,
        "right_per_second": 1_000,
        "errors": {},
        "p50_ms": 5,
        "p99_ms": 20,
        "generator_cpu_share": 0.4,
        "generator_lag_p99_ms": 2,
    }
    return SoakSample.model_validate(values | changed)


def an_hour(changed: Callable[[float, random.Random], dict[str, float]]) -> list[SoakSample]:
    """Return an hour of samples, with what ``changed`` makes of each moment (0 to 1)."""
    chance = random.Random(1)
    return [sample(at, **changed(at / HOUR, chance)) for at in range(0, int(HOUR), 5)]


def broken(rows: list[Row]) -> set[str]:
    return {row.text for row in rows if row.verdict is not Verdict.HOLDS}


def test_a_flat_hour_keeps_every_promise() -> None:
    def noise(_: float, chance: random.Random) -> dict[str, float]:
        return {
            "rss_bytes": int((100 + chance.uniform(-3, 3)) * MEBI),
            "wal_bytes": int(chance.uniform(0, 8) * MEBI),
            "p99_ms": 20 + chance.expovariate(0.1),
            "descriptors": 30 + chance.randrange(2),
        }

    promises = judge_samples(an_hour(noise), SETTINGS)
    assert broken(promises) == set()
    assert len(promises) == 6


@pytest.mark.parametrize(
    ("leak", "caught"),
    [
        (lambda share: {"rss_bytes": int((100 + 10 * share) * MEBI)}, {RSS}),
        (lambda share: {"descriptors": 30 + int(10 * share)}, {DESCRIPTORS}),
        (lambda share: {"threads": 10 + int(10 * share)}, {THREADS}),
        (lambda share: {"database_bytes": int((20 + 10 * share) * MEBI)}, {JOURNAL}),
        (lambda share: {"wal_bytes": int((4 + 10 * share) * MEBI)}, {JOURNAL}),
        (lambda share: {"cpu_share": 0.5 + 0.05 * share}, {CPU}),
        (lambda share: {"p99_ms": 20 + 40 * share}, {P99}),
    ],
)
def test_what_grows_by_a_tenth_or_more_in_an_hour_is_caught_and_nothing_else(
    leak: Callable[[float], dict[str, float]], caught: set[str]
) -> None:
    promises = judge_samples(an_hour(lambda share, _: leak(share)), SETTINGS)
    assert broken(promises) == caught


def test_a_leak_is_caught_through_noise_and_wild_samples() -> None:
    def leak(share: float, chance: random.Random) -> dict[str, float]:
        wild = 50 if chance.random() < 0.1 else 0
        return {"rss_bytes": int((100 + 12 * share + chance.uniform(-3, 3) + wild) * MEBI)}

    assert broken(judge_samples(an_hour(leak), SETTINGS)) == {RSS}


def test_growth_of_the_first_half_alone_is_warm_up() -> None:
    def warm_up(share: float, _: random.Random) -> dict[str, float]:
        return {"rss_bytes": int((60 + 80 * min(share, 0.5)) * MEBI)}

    assert broken(judge_samples(an_hour(warm_up), SETTINGS)) == set()


def test_too_few_samples_keep_no_promise() -> None:
    assert len(broken(judge_samples([sample(0), sample(5)], SETTINGS))) == 6


def test_a_journal_in_memory_is_no_growth() -> None:
    samples = [sample(at, database_bytes=0, wal_bytes=0) for at in range(20)]
    assert JOURNAL not in broken(judge_samples(samples, SETTINGS))


def test_a_trend_is_its_slope_in_per_cent_an_hour_of_the_median() -> None:
    trend = trend_of([(at, 100 + at / 36) for at in range(0, 361, 10)])
    assert trend is not None
    assert trend.per_hour == pytest.approx(100 * 100 / 105)
    assert trend.low == pytest.approx(trend.per_hour)
    assert trend.within == pytest.approx(trend.per_hour / 10)


def test_the_trend_of_noise_may_be_none() -> None:
    chance = random.Random(7)
    trend = trend_of([(at, chance.gauss(100, 5)) for at in range(200)])
    assert trend is not None
    assert trend.low < 0 < trend.high


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_samples_that_follow_each_other_alike_do_not_pass_for_a_trend(alike: float) -> None:
    sure = 0
    for seed in range(100):
        chance = random.Random(seed)
        level, values = 0.0, []
        for _ in range(150):
            level = alike * level + chance.gauss(0, 1)
            values.append(100 + level)
        trend = trend_of(list(enumerate(values)))
        assert trend is not None
        sure += trend.low > 0
    # 2.5 of 100 in the long run; without regard to how alike they are, 3, 11 and 32 of these.
    assert sure < 10


def test_a_wal_that_comes_and_goes_is_judged_by_what_it_grows_to() -> None:
    def saw(share: float, _: random.Random) -> dict[str, float]:
        # Its teeth become wider, so that it is found large more often.
        tooth = share * 400 % 10
        return {"wal_bytes": int((8 if tooth < 5 * (1 + share) else 0) * MEBI)}

    assert JOURNAL not in broken(judge_samples(an_hour(saw), SETTINGS))


def test_a_load_that_was_not_served_breaks_its_promises() -> None:
    assert broken(judge_load(990, 975, 0, 0)) == set()
    assert broken(judge_load(1_000, 970, 1, 2)) == {
        "Throughput, of what was put on",
        "Wrong answers",
        "Failed operations",
    }


def ageing(*, p99: Sequence[float] = (1, 1), cpu: Sequence[float] = (1, 1)) -> Ageing:
    return Ageing(p50=None, p99=ratio_to([1, 1], p99), cpu=ratio_to([1, 1], cpu), failed=0)


def test_a_service_that_is_slower_than_a_fresh_one_in_every_round_has_aged() -> None:
    assert broken(judge_ageing(ageing(p99=(1.2, 1.3), cpu=(1.01, 1.09)))) == set()
    assert broken(judge_ageing(ageing(p99=(0.9, 3.0)))) == set()
    assert broken(judge_ageing(ageing(p99=(1.2, 1.4), cpu=(1.04, 1.08)))) == {
        "p99 of the soaked service, of a fresh one's",
        "CPU of an operation, likewise",
    }
    nothing = Ageing(p50=None, p99=None, cpu=None, failed=1)
    assert len(broken(judge_ageing(nothing))) == 3


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600)])
def test_a_duration_is_written_with_or_without_its_unit(text: str, seconds: float) -> None:
    assert SoakSettings.model_validate({"duration": text}).duration == seconds


@pytest.mark.parametrize("flags", [["--duration=soon"], ["--rate=5"], ["--connections=2000"]])
def test_what_a_soak_can_not_do_is_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["soak", *flags]) == Exit.CONFIGURATION
    assert flags[0].partition("=")[0] in capsys.readouterr().err


def test_a_short_soak_of_a_real_service_tells_what_it_saw(tmp_path: Path) -> None:
    code = main(
        [
            "soak",
            "--duration=3s",
            "--sample-seconds=0.2",
            "--channels=20",
            "--warm-up-seconds=0.2",
            "--duration-seconds=0.5",
            "--load=0.2",
            "--churn-rate=5",
            "--idle-timeout=0.5",
            "--fresh-rounds=2",
            "--fresh-seconds=0.5",
            f"--output={tmp_path}",
        ]
    )
    saved = read(tmp_path / "soak.json")
    # Whatever a few seconds say of growth, the exit code says the same.
    assert code == saved.exit
    result = SoakDetail.model_validate(saved.detail)
    assert result.wrong_answers == 0
    assert result.errors == {}
    assert result.channels_established == result.channels_closed > 0
    assert len(result.samples) > 3
    assert all(each.rss_bytes and each.descriptors and each.threads for each in result.samples)
    assert any(each.p99_ms for each in result.samples)
    assert all(each.generator_cpu_share > 0 for each in result.samples)
    assert any(each.generator_lag_p99_ms for each in result.samples)
    assert result.ageing is not None
    assert result.ageing.failed == 0
    assert result.ageing.cpu is not None
    assert result.ageing.cpu.low > 0
    assert (tmp_path / "soak.html").read_text().count("<svg") == 6
    # The whole, and each of its plots.
    assert (tmp_path / "soak.svg").read_text().count("<svg") == 1 + 6
