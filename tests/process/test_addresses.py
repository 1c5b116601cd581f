"""Addresses: what each setting takes, what it says of all else, and what listening says."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_actor.network.addresses import (
    AddressError,
    HostPort,
    ListenError,
    UnixSocket,
    parse,
    parse_target,
    why_not_listening,
)
from connect_actor.operator import health
from connect_actor.settings import SettingsError, load_settings
from connect_loadgen.settings.load import ConfigurationError, RunSettings
from connect_loadgen.settings.load import load_settings as load_generators
from tests.support.process import PATIENCE, Start, scrape


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")

# --- Parsing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("0.0.0.0:0", "0.0.0.0", 0),  # noqa: S104 - read, not listened on
        ("[::1]:9464", "::1", 9464),
        ("[::]:65535", "::", 65535),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1),
        ("localhost:1", "localhost", 1),
        ("a.example.:1", "a.example.", 1),
        ("service_a-1.example:00080", "service_a-1.example", 80),
        ("1host:1", "1host", 1),
    ],
)
def test_hosts_and_ports_are_taken_apart(text: str, host: str, port: int) -> None:
    found = parse(text)
    assert found == HostPort(host, port)
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("unix:path", "path"),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix:///run/a.sock", "/run/a.sock"),
        ("unix:" + "p" * 107, "p" * 107),
        ("unix-abstract:name", "\0name"),
        ("unix-abstract:" + "n" * 107, "\0" + "n" * 107),
    ],
)
def test_unix_sockets_are_taken_as_they_are(text: str, name: str) -> None:
    assert parse(text) == UnixSocket(text, name)
    assert str(parse(text)) == text


REFUSED = [
    ("", "the port is missing"),
    ("here", "the port is missing"),
    ("127.0.0.1", "the port is missing"),
    ("127.0.0.1:", "the port is missing"),
    ("[::1]", "the port is missing"),
    ("[::1]:", "the port is missing"),
    (":80", "the host is missing"),
    (":", "the host is missing"),
    ("::1", "an IPv6 address goes in brackets"),
    ("::1:80", "an IPv6 address goes in brackets"),
    ("fe80::1%eth0:80", "an IPv6 address goes in brackets"),
    ("::", "an IPv6 address goes in brackets"),
    ("[127.0.0.1]:80", "not an IPv6 address in brackets"),
    ("[]:80", "not an IPv6 address in brackets"),
    ("[::1%]:80", "not an IPv6 address in brackets"),
    ("[::g]:80", "not an IPv6 address in brackets"),
    ("[::1]x:80", "not a host name"),
    ("256.0.0.1:80", "256.0.0.1 is not an IPv4 address"),
    ("127.1:80", "127.1 is not an IPv4 address"),
    ("*:80", "not a host name"),
    ("a..b/c:80", "not a host name"),
    ("http://here:80", "not a host name"),
    ("dns:///here:80", "not a host name"),
    ("-a:80", "not a host name"),
    ("h\u00f6st:80", "not a host name"),
    ("here:http", "http is not a port number"),
    ("here:-1", "-1 is not a port number"),
    ("here:+1", "is not a port number"),
    ("here:1.5", "is not a port number"),
    ("here:\u0661", "is not a port number"),
    ("here:65536", "ports go up to 65535"),
    ("here:" + "9" * 5_000, "ports go up to 65535"),
    (" here:80", "without spaces"),
    ("here :80", "without spaces"),
    ("here:80 ", "without spaces"),
    ("he\u200bre:80", "without spaces"),
]
REFUSED_TOO = [
    # Flags are stripped before.
    ("here:80\n", "without spaces"),
    ("unix:", "expected unix:path"),
    ("unix://", "expected unix:path, or unix:///path"),
    ("unix://host/path", "expected unix:path, or unix:///path"),
    ("unix:a\0b", "expected unix:path"),
    ("unix:" + "p" * 108, "at most 107 bytes"),
    ("unix-abstract:", "expected unix-abstract:name"),
    ("unix-abstract:" + "n" * 108, "at most 107 bytes"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED + REFUSED_TOO)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(AddressError, match=re.escape(said)):
        parse(text)


def test_port_0_is_for_listening_only() -> None:
    assert parse("127.0.0.1:0")
    with pytest.raises(AddressError, match="not connected to"):
        parse_target("127.0.0.1:0")


@given(st.text() | st.from_regex(r"[\[\]0-9a-f:.%]{0,20}(:[0-9]{0,6})?", fullmatch=True))
def test_any_text_is_an_address_that_is_written_the_same_again_or_is_refused(text: str) -> None:
    try:
        found = parse(text)
    except AddressError:
        return
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[0:0::0]:1", "[::1]:1"),
        ("[::1]:1", "[::1]:1"),
        ("here:1", "here:1"),
        ("unix:path", "unix:path"),
    ],
)
def test_what_listens_on_every_interface_is_found_on_the_loopback_one(
    listen: str, found: str
) -> None:
    assert str(parse(listen).reachable) == found


# --- Settings -------------------------------------------------------------------------------------


def of_service(flag: str) -> Callable[[str], str]:
    def load(text: str) -> str:
        with pytest.raises(SettingsError) as refused:
            load_settings([f"--{flag}={text}"])
        return str(refused.value)

    return load


def of_generator(flag: str) -> Callable[[str], str]:
    def load(text: str) -> str:
        with pytest.raises(ConfigurationError) as refused:
            load_generators(RunSettings, [f"--{flag}={text}"])
        return str(refused.value)

    return load


SETTINGS = {
    **{f"serve --{flag}": of_service(flag) for flag in ("listen", "metrics-listen")},
    **{
        f"loadgen --{flag}": of_generator(flag)
        for flag in ("listen", "metrics-listen", "serve-metrics", "target", "target-metrics")
    },
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("text", "said"), REFUSED[::6])
def test_every_setting_refuses_the_same_and_names_itself(
    setting: str, text: str, said: str
) -> None:
    told = SETTINGS[setting](text)
    assert (said if text else "is empty") in told
    assert setting.rpartition("--")[2] in told.replace("_", "-")


@pytest.mark.parametrize(
    "setting", [name for name in SETTINGS if "metrics" in name], ids=lambda name: name
)
def test_metrics_are_for_tcp(setting: str) -> None:
    assert "expected host:port, not a Unix socket" in SETTINGS[setting]("unix:path")


def test_the_health_command_refuses_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.run(["--target=::1:50051"]) == 2
    told = capsys.readouterr().err
    assert "connect-actor: --target ::1:50051: expected host:port: an IPv6 address goes in" in told


# --- Listening ------------------------------------------------------------------------------------


def loadgen(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_loadgen.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("listen", "metrics", "workers"),
    [
        ("localhost:0", "localhost:0", 1),
        ("unix:{directory}/socket", "127.0.0.1:0", 1),
        pytest.param("[::1]:0", "[::1]:0", 1, marks=needs_ipv6),
        pytest.param("[::]:0", "[::]:0", 1, marks=needs_ipv6),
        pytest.param("[::1]:0", "[::1]:0", 2, marks=needs_ipv6),
    ],
)
def test_what_a_service_says_of_its_addresses_is_a_target(
    start: Start, tmp_path: Path, listen: str, metrics: str, workers: int
) -> None:
    service = start(
        f"--listen={listen.format(directory=tmp_path)}",
        f"--metrics-listen={metrics}",
        f"--workers={workers}",
        "--allow-plaintext=true",
    )
    ready = service.ready
    assert "process_cpu_seconds_total" in scrape(ready["metrics"])
    assert health.run([f"--target={ready['listen']}", f"--timeout={PATIENCE}"]) == 0
    output = tmp_path / "run.json"
    ran = loadgen(
        "run",
        f"--target={ready['listen']}",
        f"--target-metrics={ready['metrics']}",
        *["--channels=4", "--concurrency=64", "--warm-up-seconds=0", "--duration-seconds=0.3"],
        f"--output={output.parent}",
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(output.read_text())["sides"]["run"]["rounds"][0]["cost"]["cpu_seconds"] > 0


def refusal(tmp_path: Path, *flags: str) -> str:
    """Return what a service says that does not start."""
    given = {"--listen": "127.0.0.1:0", "--metrics-listen": "127.0.0.1:0"}
    given |= dict(flag.split("=", 1) for flag in flags)
    refused = subprocess.run(  # noqa: S603 - our own command
        [
            *(
                sys.executable,
                "-m",
                "connect_actor.cli",
                "serve",
                f"--data-dir={tmp_path / 'data'}",
            ),
            *(f"{flag}={value}" for flag, value in given.items()),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert refused.returncode == 3
    assert "Traceback" not in refused.stderr
    return refused.stderr


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("203.0.113.5:0", "no interface of this machine has the address"),
        ("no-such-host.invalid:0", "the host name can't be resolved"),
    ],
)
def test_why_an_address_can_not_be_listened_on_is_said(
    tmp_path: Path, setting: str, address: str, why: str, workers: int
) -> None:
    flags = (f"--{setting.replace('_', '-')}={address}", f"--workers={workers}")
    told = refusal(tmp_path, *flags, "--allow-plaintext=true")
    assert f"connect-actor: {setting}: can't listen on {address}: {why}" in told


@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
def test_in_use_is_said_of_an_address_that_is(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = refusal(tmp_path, f"--{setting.replace('_', '-')}={address}")
    assert f"connect-actor: {setting}: can't listen on {address}: the address is in use" in told


def test_a_unix_socket_that_a_service_listens_on_is_in_use_and_one_left_behind_is_free(
    start: Start, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path}/socket"
    first = start(f"--listen={listen}")
    told = refusal(tmp_path / "other", f"--listen={listen}")
    assert f"listen: can't listen on {listen}: the address is in use" in told
    assert health.run([f"--target={listen}", f"--timeout={PATIENCE}"]) == 0
    first.process.kill()
    first.process.wait()
    assert (tmp_path / "socket").is_socket()
    second = start(f"--listen={listen}", f"--data-dir={tmp_path / 'third'}")
    assert second.ready["listen"] == listen
    assert health.run([f"--target={listen}", f"--timeout={PATIENCE}"]) == 0


def test_a_unix_socket_in_a_directory_that_is_not_there_is_said(
    tmp_path: Path,
) -> None:
    told = refusal(tmp_path, f"--listen=unix:{tmp_path}/none/socket")
    assert "/none/socket: No such file or directory" in told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EADDRINUSE, "x"), "the address is in use"),
        (OSError(errno.EACCES, "x"), "permission denied"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "no interface of this machine has the address"),
        (OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT)), "Address family not"),
        (socket.gaierror(socket.EAI_NONAME, "y"), "the host name can't be resolved (y)"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
    ],
)
def test_the_systems_reason_is_given_and_no_other(error: OSError, said: str) -> None:
    told = str(ListenError.of("listen", "here:1", error))
    assert told.startswith(f"listen: can't listen on here:1: {said}")
    assert ("in use" in told) == (error.errno == errno.EADDRINUSE)


def test_a_look_at_an_address_that_is_free_leaves_nothing_behind(tmp_path: Path) -> None:
    assert why_not_listening(parse("127.0.0.1:0")) is None
    assert why_not_listening(parse(f"unix:{tmp_path}/socket")) is None
    assert list(tmp_path.iterdir()) == []
