"""The image and the compose file, without an engine: what they say, and the image's own steps."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from connect_actor.client import ConnectClient, Identity
from connect_actor.settings import Settings
from connect_actor.v1 import connect_pb2 as wire
from tests.images.compose_check import STRATEGIES
from tests.support.compiler import needs_hook
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands


def read_yaml(name: str) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(ROOT / name)
    return content


# --- What the files say ---------------------------------------------------------------------------


def test_the_compose_file_fits_the_compose_specification() -> None:
    checked = run(
        BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_schema_notices_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("cap_drop:", "cap_dorp:"))
    checked = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", wrong)
    assert checked.returncode != 0


def test_the_dockerfile_passes_its_linter() -> None:
    # DL3008 wants exact versions of Debian's packages, which a point release withdraws.
    checked = run(BIN / "hadolint", "--ignore", "DL3008", "Dockerfile")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_image_says_what_it_is() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'org.opencontainers.image.version="{project["version"]}"' in dockerfile
    bases = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert len(set(bases)) == 1
    assert f'org.opencontainers.image.base.name="docker.io/library/{bases[0]}"' in dockerfile


def test_no_container_asks_a_registry_for_the_image_that_is_built_here(
    compose: dict[str, dict[str, Any]],
) -> None:
    ours = {name: service for name, service in compose.items() if "CONNECT" in service["image"]}
    assert len(ours) == 2 * len(STRATEGIES)
    builders = {name for name, service in ours.items() if "build" in service}
    assert builders == {"service-full"}
    assert all(ours[name]["pull_policy"] == "never" for name in ours.keys() - builders)


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = read_yaml("docker-compose.yml")["services"]
    return services


def test_every_container_is_hardened_and_bounded(compose: dict[str, dict[str, Any]]) -> None:
    for name, service in compose.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert service["pids_limit"], name
        assert service["healthcheck"]["test"], name


def test_a_service_is_given_the_time_that_it_may_take_to_stop(
    compose: dict[str, dict[str, Any]],
) -> None:
    grace = Settings.model_fields["shutdown_grace"].default
    for strategy in STRATEGIES:
        given = compose[f"service-{strategy}"]["stop_grace_period"]
        assert float(given.removesuffix("s")) > 1.25 * grace


def test_everything_is_published_on_loopback_only(compose: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in compose.values() for port in service.get("ports", ())]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_each_strategy_has_a_service_and_the_same_load(
    compose: dict[str, dict[str, Any]],
) -> None:
    loads = []
    for strategy in STRATEGIES:
        assert compose[f"service-{strategy}"]["environment"] == {
            "CONNECT_ACTOR_STRATEGY": strategy,
            "CONNECT_ACTOR_REDELIVERY_WINDOW": "0",
            "CONNECT_ACTOR_ALLOW_PLAINTEXT": "true",
            # Four times as much is what the process takes at most: see its mem_limit.
            "CONNECT_ACTOR_MAX_BYTES_IN_SERVICE": str(192 << 20),
        }
        load = compose[f"load-{strategy}"]
        environment = dict(load["environment"])
        assert environment.pop("LOADGEN_TARGET") == f"service-{strategy}:50051"
        assert load["depends_on"] == {f"service-{strategy}": {"condition": "service_healthy"}}
        loads.append(environment)
    assert loads[0] == loads[1] == loads[2]


def test_prometheus_scrapes_what_the_stack_runs(compose: dict[str, dict[str, Any]]) -> None:
    config = read_yaml("grafana/prometheus/prometheus.yml")
    targets = {
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert targets == set(compose) - {"prometheus", "grafana"}


# --- The image's steps ----------------------------------------------------------------------------


class Installed:
    """What the image holds, installed by its steps; its programs run as another user."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prefix = directory / "prefix"
        self.data = directory / "data"
        self.data.mkdir(mode=0o700)
        self.user: int | None = None
        self.group: int | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user, self.group = nobody.pw_uid, nobody.pw_gid
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        self.python = self._python()

    def _python(self) -> str:
        """Return a Python 3.11 that the other user may run."""
        for python in ("/usr/local/bin/python3.11", "/usr/bin/python3.11", sys.executable):
            if Path(python).exists():
                with contextlib.suppress(PermissionError):
                    code, _ = self.run(python, "-c", "import ssl, sqlite3")
                    if code == 0:
                        return python
        pytest.skip("no Python 3.11 here that an ordinary user may run")

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program as in the image: as another user, with nothing of ours around it."""
        return subprocess.Popen(  # noqa: S603 - our own commands
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(self.prefix),
                "MPLCONFIGDIR": str(self.data / "matplotlib"),
            },
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
        )

    def run(self, *command: str) -> tuple[int, str]:
        """Run a program to its end; return its exit code and what it printed."""
        process = self.start(*command)
        printed, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, printed

    def install(self) -> None:
        """Do what the Dockerfile's first stage does, from what its context lets in."""
        context = self.directory / "context"
        context.mkdir()
        for line in (ROOT / ".dockerignore").read_text().splitlines():
            if line.startswith("!"):
                source = ROOT / line[1:].rstrip("/")
                if source.is_dir():
                    shutil.copytree(
                        source,
                        context / source.name,
                        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
                    )
                else:
                    shutil.copy(source, context)
        pip = (BIN / "pip", "--disable-pip-version-check", "--quiet", "install")
        into = ("--target", self.prefix)
        locked = ("--require-hashes", "--requirement", context / "requirements.lock")
        wheels = self.directory / "wheels"
        steps: tuple[tuple[str | Path, ...], ...] = (
            (*pip, *into, *locked),
            (
                *(BIN / "pip", "--disable-pip-version-check", "--quiet", "wheel"),
                *("--no-deps", "--no-build-isolation", "--wheel-dir", wheels, context),
            ),
        )
        for step in steps:
            done = run(*step)
            assert done.returncode == 0, done.stderr
        (wheel,) = wheels.iterdir()
        done = run(*pip, *into, "--no-deps", "--no-index", wheel)
        assert done.returncode == 0, done.stderr
        run("chmod", "-R", "a+rX", self.prefix)

    @contextlib.contextmanager
    def serving(self) -> Iterator[dict[str, str]]:
        """Run the service as the image does, and end it as an engine does."""
        process = self.start(
            self.python,
            *("-m", "connect_actor.cli", "serve", f"--data-dir={self.data}"),
            *("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"),
        )
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    # Not in pytest's own directory: that is for its user alone.
    directory = Path(tempfile.mkdtemp(prefix="image-"))
    directory.chmod(0o755)
    try:
        image = Installed(directory)
        image.install()
        yield image
    finally:
        shutil.rmtree(directory)


async def test_what_the_image_holds_serves_as_another_user_and_keeps_its_channels(
    installed: Installed,
) -> None:
    with installed.serving() as ready:
        target = f"--target={ready['listen']}"
        asked = installed.run(installed.python, "-m", "connect_actor.cli", "health", target)
        assert asked == (0, "SERVING\n")
        async with ConnectClient(ready["listen"]) as client:
            channel = await client.establish(Identity.generate(os.urandom))
            assert channel.open(await channel.encrypt(b"before")) == b"before"
    if installed.user is not None:
        owners = {path.stat().st_uid for path in installed.data.iterdir()}
        assert owners == {installed.user}
    with installed.serving() as ready:
        async with ConnectClient(ready["listen"]) as client:
            restored = await client.stub.Restore(wire.RestoreRequest(connect_id=channel.connect_id))
            assert restored.sending_chain_length == 1


@needs_hook
def test_the_image_holds_the_load_generator_and_both_extensions(installed: Installed) -> None:
    code, told = installed.run(installed.python, "-m", "connect_loadgen.cli", "--help")
    assert code == 0
    assert "compare" in told
    assert list((installed.prefix / "connect_actor" / "observe").glob("_allocation_hook*.so"))
    step = "import connect_actor.protocol._message_step"
    assert installed.run(installed.python, "-c", step) == (0, "")
    assert not (installed.prefix / "tests").exists()
