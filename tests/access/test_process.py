"""Access as an operator sets it up: flags, files and signals of the real process."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import UnauthenticatedError
from connect_actor.network.addresses import parse
from connect_actor.network.client_tls import ClientTls
from connect_actor.settings import SettingsError, load_settings
from connect_actor.v1 import connect_pb2 as wire
from tests.process.test_process import run_cli
from tests.support.certificates import Certificate, Parts
from tests.support.house import until
from tests.support.process import PATIENCE, RunningService, Start, scrape


@pytest.mark.parametrize(
    ("listen", "safe"),
    [
        ("127.0.0.1:50051", True),
        ("127.3.2.1:0", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("[::ffff:127.0.0.1]:50051", True),
        ("LOCALHOST.:50051", True),
        ("unix:/run/service.sock", True),
        ("unix-abstract:name", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("10.0.0.1:50051", False),
        ("128.0.0.1:50051", False),
        ("localhost.example:50051", False),
        ("127.0.0.1.example:50051", False),
    ],
)
def test_clear_text_is_for_this_machine_unless_told_otherwise(
    listen: str,
    safe: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    assert parse(listen).is_loopback is safe
    flag = f"--listen={listen}"
    if safe:
        assert load_settings([flag]).listen == listen
    else:
        with pytest.raises(SettingsError, match="in clear text beyond this machine"):
            load_settings([flag])
    assert load_settings([flag, "--allow-plaintext=true"]).listen == listen
    tls = ("--tls-certificate=c.pem", "--tls-private-key=k.pem")
    assert load_settings([flag, *tls]).listen == listen


def test_a_service_in_clear_text_beyond_this_machine_does_not_start(tmp_path: Path) -> None:
    refused = run_cli("serve", "--listen=0.0.0.0:0", f"--data-dir={tmp_path / 'data'}")
    assert refused.returncode == 2
    assert "give a --tls-certificate" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tls-certificate=c.pem"], "belong together"),
        (["--tls-private-key=k.pem"], "belong together"),
        (["--tls-client-ca=ca.pem"], "needs a --tls-certificate"),
        (["--max-channels-per-principal=1"], "needs callers that are known"),
        (["--max-operations-per-second=-1"], "--max-operations-per-second"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(flags)


@pytest.mark.parametrize("what", ["certificate", "tokens"])
def test_a_file_that_cannot_be_used_stops_the_start_and_touches_nothing(
    tmp_path: Path, what: str
) -> None:
    flags = {
        "certificate": ("--tls-certificate=/no/c.pem", "--tls-private-key=/no/k.pem"),
        "tokens": ("--token-file=/no/tokens",),
    }[what]
    refused = run_cli("serve", "--listen=127.0.0.1:0", f"--data-dir={tmp_path / 'data'}", *flags)
    assert refused.returncode == 3
    assert "can't be read: No such file" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"days": (-2, -1)}, "expired at"),
        ({"days": (1, 2)}, "is not valid before"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "no client of gRPC can reach the service"),
    ],
    ids=["expired", "of the future", "Ed25519"],
)
def test_a_certificate_that_no_client_can_use_stops_the_start_with_one_line(
    tmp_path: Path, authority: Certificate, parts: Parts, said: str
) -> None:
    certificate, key = authority.issue("service", **parts).write(tmp_path, "service")
    refused = run_cli(
        "serve",
        "--listen=127.0.0.1:0",
        f"--data-dir={tmp_path / 'data'}",
        f"--tls-certificate={certificate}",
        f"--tls-private-key={key}",
    )
    assert refused.returncode == 3
    assert said in refused.stderr
    # A plain user may be told that memory can't be locked.
    lines = [line for line in refused.stderr.splitlines() if '"level": "info"' not in line]
    assert len(lines) == 1
    assert not (tmp_path / "data").exists()


def make_token(name: str) -> tuple[str, str]:
    """Return a token and its line, as the command prints them."""
    printed = run_cli("token", name)
    assert printed.returncode == 0
    token, line = printed.stdout.splitlines()
    assert token not in line
    return token, line


def test_the_token_command_refuses_a_name_with_spaces() -> None:
    refused = run_cli("token", "two words")
    assert refused.returncode == 2
    assert "no white space" in refused.stderr
    assert refused.stdout == ""


async def is_let_in(service: RunningService, token: str, tls: ClientTls) -> bool:
    async with ConnectClient(service.ready["listen"], tls=tls, token=token) as client:
        try:
            await client.establish(Identity.generate(os.urandom), timeout=PATIENCE)
        except UnauthenticatedError:
            return False
        return True


@pytest.fixture
def secured(start: Start, tmp_path: Path, authority: Certificate) -> Callable[..., RunningService]:
    def secured(*lines: str) -> RunningService:
        certificate, key = authority.issue("service").write(tmp_path, "service")
        (tmp_path / "tokens").write_text("\n".join(lines))
        return start(
            f"--tls-certificate={certificate}",
            f"--tls-private-key={key}",
            f"--token-file={tmp_path / 'tokens'}",
        )

    return secured


def test_the_metrics_tell_when_the_certificate_expires(
    secured: Callable[..., RunningService], tmp_path: Path
) -> None:
    service = secured()
    certificate = x509.load_pem_x509_certificate((tmp_path / "service.pem").read_bytes())
    ends = certificate.not_valid_after_utc.timestamp()
    (told,) = re.findall(
        r"^connect_certificate_not_after_seconds\{.*\} (\S+)$",
        scrape(service.ready["metrics"]),
        re.MULTILINE,
    )
    assert float(told) == ends


async def test_sighup_has_tokens_and_certificates_read_anew(
    secured: Callable[..., RunningService],
    tmp_path: Path,
    authority: Certificate,
    stranger: Certificate,
) -> None:
    (alice, alices), (bob, bobs) = make_token("alice"), make_token("bob")
    service = secured(alices)
    before, after = ClientTls(authority.pem), ClientTls(stranger.pem)
    assert await is_let_in(service, alice, before)
    assert not await is_let_in(service, bob, before)
    client = ConnectClient(service.ready["listen"], tls=before, token=alice)
    stream = client.stub.Exchange(endless())
    await stream.read()
    write(tmp_path / "tokens", bobs)
    stranger.issue("service").write(tmp_path, "service")
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: service.log.count("read anew: ") == 3)  # the keys, too
    assert await is_let_in(service, bob, after)
    assert not await is_let_in(service, alice, after)
    # A stream of a caller whose token has gone has ended, too.
    assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
    await client.close()
    # What can't be used is named, and changes nothing.
    write(tmp_path / "tokens", "nonsense")
    write(tmp_path / "service.pem", "nonsense")
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: service.log.count("stays in force") == 2)
    assert await is_let_in(service, bob, after)
    assert service.signal(signal.SIGTERM) == 0
    assert not any(secret in service.log for secret in (alice, bob, alices, bobs))


async def endless() -> AsyncIterator[wire.OperationFrame]:
    yield wire.OperationFrame(operations=[wire.Operation()])
    await asyncio.Event().wait()


async def test_whoever_knocks_without_tls_leaves_no_line_in_the_log(
    secured: Callable[..., RunningService], authority: Certificate
) -> None:
    (token, line) = make_token("alice")
    service = await asyncio.to_thread(secured, line)
    host, _, port = service.ready["listen"].rpartition(":")
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
    assert await is_let_in(service, token, ClientTls(authority.pem))
    told = [json.loads(line) for line in service.log_to_the_end().splitlines()]
    # Of its start and its end.
    assert {line["logger"] for line in told} <= {
        "connect_actor.process.app",
        "connect_actor.process.hardening",
    }


def write(path: Path, content: str) -> None:
    path.write_text(content)


async def test_a_changed_file_is_seen_without_a_signal(
    secured: Callable[..., RunningService], tmp_path: Path, authority: Certificate
) -> None:
    (_, alices), (bob, bobs) = make_token("alice"), make_token("bob")
    service = secured(alices)
    write(tmp_path / "tokens", alices + "\n" + bobs)
    await until(lambda: "read anew" in service.log)
    assert await is_let_in(service, bob, ClientTls(authority.pem))


async def test_health_is_asked_by_tls_with_what_the_environment_says(
    secured: Callable[..., RunningService], tmp_path: Path, authority: Certificate
) -> None:
    service = await asyncio.to_thread(secured)
    listen = service.ready["listen"]
    write(tmp_path / "ca.pem", authority.pem.decode())
    environment = {
        "CONNECT_ACTOR_LISTEN": f"0.0.0.0:{listen.rpartition(':')[2]}",
        "CONNECT_ACTOR_TLS_CERTIFICATE": str(tmp_path / "service.pem"),
        "CONNECT_ACTOR_TLS_PRIVATE_KEY": str(tmp_path / "service.key"),
    }
    for asked in (
        run_cli("health", f"--target={listen}", f"--tls-ca={tmp_path / 'ca.pem'}"),
        run_cli("health", **environment),
    ):
        assert (asked.stdout, asked.returncode) == ("SERVING\n", 0)
    in_clear = run_cli("health", f"--target={listen}", "--timeout=2")
    assert in_clear.returncode == 1
    no_file = run_cli("health", f"--target={listen}", "--tls-ca=/no/ca.pem")
    assert no_file.returncode == 2
    assert "/no/ca.pem" in no_file.stderr
