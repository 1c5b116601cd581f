"""docs/reference/metrics.md against what a real service and generator expose, in one mixed run."""

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import MalformedRequestError
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.load import Progress
from connect_loadgen.experiments.run import run_load
from connect_loadgen.service.process import DEFAULT_COMMAND, ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import RunSettings, load_settings
from grafana.local.programs import Programs
from tests.support.compiler import HOOK_EXPECTED
from tests.support.metric_table import TABLE, Row, documented
from tests.support.plain_user import as_plain_user, plain_users_directory
from tests.support.process import PATIENCE, scrape

CHANNELS = 40

# Of a service; histograms make up most. Three services and the generator stay below 2,500.
MAX_SERIES = 600

_NOT_BASE_UNITS = re.compile(
    r"_(ms|us|ns|milliseconds|microseconds|minutes|hours|kb|mb|kib|mib|kilobytes|percent)(_|$)"
)


# --- The run --------------------------------------------------------------------------------------


class Exposed:
    """What one process has told."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))

    @property
    def shapes(self) -> set[tuple[str, str, frozenset[str]]]:
        """Name, type and labels of every metric."""
        return {
            (
                f"{family.name}_total" if family.type == "counter" else family.name,
                family.type,
                frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            )
            for family in self.families
        }

    @property
    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in self.families
            for sample in family.samples
        }


@dataclass
class MixedRun:
    service: Exposed
    later: Exposed
    """The same, after all has been done again on other channels."""
    generator: Exposed
    connect_ids: set[int]


class Watcher(Progress):
    """Reads the generator's metrics whenever the load says how it goes."""

    def __init__(self) -> None:
        self.text = ""
        self._address = ""

    def step(self, text: str) -> None:
        if told := re.search(r"http://([\d.:]+)/metrics", text):
            self._address = told[1]

    def tick(self, share: float, text: str) -> None:
        del share, text
        self.text = scrape(self._address)


async def provoke(client: ConnectClient) -> set[int]:
    """Do what the load does not: unary calls, restores, closings, refusals, nonsense."""
    identity = Identity.generate(os.urandom)
    channels = [await client.establish(identity) for _ in range(CHANNELS)]
    for channel in channels:
        payload = channel.seal(b"x")
        await channel.decrypt(payload)
        payload.nonce = b"short"
        with pytest.raises(MalformedRequestError):
            await channel.decrypt(payload)
    await channels[0].restore()
    await channels[0].close()
    async with client.exchange() as stream:
        await stream.call([wire.Operation()])
    return {channel.connect_id for channel in channels}


async def run_mixed_load(directory: Path) -> MixedRun:
    # A plain user's process is told less of itself by the kernel than root's is.
    command = as_plain_user(*DEFAULT_COMMAND)
    options = ServiceOptions("differential", "sqlite", directory, command=command)
    async with ServiceProcess(options, PATIENCE) as service:
        settings = load_settings(
            RunSettings,
            [
                f"--target={service.listen}",
                f"--target-metrics={service.metrics}",
                "--serve-metrics=127.0.0.1:0",
                f"--channels={CHANNELS}",
                "--round-trip-weight=1",
                "--rate=1000",
                "--warm-up-seconds=0",
                "--duration-seconds=0.8",
            ],
        )
        watcher = Watcher()
        await run_load(settings, watcher)
        async with ConnectClient(service.listen) as client:
            connect_ids = await provoke(client)
            first = await asyncio.to_thread(scrape, service.metrics)
            connect_ids |= await provoke(client)
            second = await asyncio.to_thread(scrape, service.metrics)
        await service.stop()
    return MixedRun(Exposed(first), Exposed(second), Exposed(watcher.text), connect_ids)


@pytest.fixture(scope="module")
def mixed_run() -> MixedRun:
    with plain_users_directory() as directory:
        return asyncio.run(run_mixed_load(directory))


# The table says that these are absent without the hook.
OF_THE_HOOK = {"connect_allocations_total", "connect_allocated_bytes_total"}


# And this one without TLS: tests/access/test_tls.py has it.
OF_TLS = "connect_certificate_not_after_seconds"


def documented_shapes(*prefixes: str) -> set[tuple[str, str, frozenset[str]]]:
    return {
        (row.name, row.kind, row.labels)
        for row in documented()
        if row.name.startswith(prefixes)
        and (HOOK_EXPECTED or row.name not in OF_THE_HOOK)
        and row.name != OF_TLS
    }


def test_the_table_holds_exactly_what_the_service_exposes(mixed_run: MixedRun) -> None:
    assert mixed_run.service.shapes == documented_shapes("connect_", "process_", "python_")


def test_the_table_holds_exactly_what_the_generator_exposes(mixed_run: MixedRun) -> None:
    assert mixed_run.generator.shapes == documented_shapes("loadgen_", "process_", "python_")


def test_every_row_says_something_and_none_comes_twice() -> None:
    rows = documented()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.unit and row.counts for row in rows)
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(rows)


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", documented(), ids=lambda row: row.name)
def test_names_keep_prometheus_conventions(row: Row) -> None:
    assert re.fullmatch(r"(connect|loadgen|process|python)(_[a-z]+)+", row.name)
    assert (row.kind == "counter") == row.name.endswith("_total")
    base = row.name.removesuffix("_total")
    assert not base.endswith(("_count", "_sum", "_bucket", "_total"))
    assert not _NOT_BASE_UNITS.search(row.name)
    for unit in ("seconds", "bytes"):
        assert (row.unit == unit) == base.endswith(f"_{unit}")
    assert base.endswith("_info") <= (row.kind == "gauge")
    assert not any(label in row.name.split("_") for label in row.labels - {"operation"})


def test_every_metric_has_help_and_a_type(mixed_run: MixedRun) -> None:
    for exposed in (mixed_run.service, mixed_run.generator):
        for family in exposed.families:
            assert family.documentation
            assert family.type in {"counter", "gauge", "histogram"}


def test_every_histogram_is_whole(mixed_run: MixedRun) -> None:
    for exposed in (mixed_run.service, mixed_run.generator):
        for family in exposed.families:
            if family.type != "histogram":
                continue
            ends: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name != "le"}
                end = ends.setdefault(tuple(sorted(labels.items())), {})
                bucket = sample.labels.get("le")
                if bucket is None or bucket == "+Inf":
                    end[bucket or sample.name.removeprefix(family.name)] = sample.value
                else:
                    assert sample.value >= end.get("below", 0)
                    end["below"] = sample.value
            for end in ends.values():
                assert end["below"] <= end["+Inf"] == end["_count"]
                assert end["_sum"] >= 0


def test_promtool_finds_nothing_to_say(mixed_run: MixedRun, programs: Programs) -> None:
    for exposed in (mixed_run.service, mixed_run.generator):
        said = subprocess.run(  # noqa: S603 - Prometheus's own tool
            [programs.promtool, "check", "metrics"],
            input=exposed.text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


# --- Labels ---------------------------------------------------------------------------------------


def test_the_number_of_series_is_bounded(mixed_run: MixedRun) -> None:
    assert len(mixed_run.service.series) <= MAX_SERIES
    assert len(mixed_run.generator.series) <= MAX_SERIES


def test_other_channels_bring_no_other_series(mixed_run: MixedRun) -> None:
    assert mixed_run.later.series == mixed_run.service.series


def test_no_label_looks_like_a_connect_id(mixed_run: MixedRun) -> None:
    assert len(mixed_run.connect_ids) == 2 * CHANNELS
    for exposed in (mixed_run.service, mixed_run.generator):
        for _, labels in exposed.series:
            for name, value in labels:
                assert name not in {"connect_id", "channel", "peer", "session"}
                if name != "le":
                    assert not re.search(r"\d{5,}|[0-9a-f]{12,}", value), (name, value)
    assert not any(str(number) in mixed_run.later.text for number in mixed_run.connect_ids)


def test_every_series_of_the_service_names_its_strategy(mixed_run: MixedRun) -> None:
    for name, labels in mixed_run.service.series:
        if name.startswith("connect_"):
            assert dict(labels)["strategy"] == "differential"
