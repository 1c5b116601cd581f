"""Each example does what its text says, on a real service."""

import os
import subprocess
import sys
from pathlib import Path

from connect_actor.client import ConnectClient, Identity
from tests.support.process import PATIENCE, Start

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own script
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_talk_uses_a_channel_in_every_way(start: Start) -> None:
    done = run("talk.py", start().ready["listen"])
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("established Channel(connect_id=")
    assert [line.partition(":")[0] for line in said[1:]] == [
        "the peer reads",
        "the service reads",
        "the service reads",
        "refused",
        "the peer reads",
        "messages on the service's sending chain",
        "closed",
    ]
    assert "the peer reads: message 0 ... message 63" in done.stdout


def test_the_generic_client_lists_what_reflection_tells(start: Start) -> None:
    done = run("generic_client.py", start().ready["listen"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "rpc Establish(EstablishRequest) returns (EstablishResponse)",
        "rpc Encrypt(EncryptRequest) returns (EncryptResponse)",
        "rpc Decrypt(DecryptRequest) returns (DecryptResponse)",
        "rpc Acknowledge(AcknowledgeRequest) returns (AcknowledgeResponse)",
        "rpc Restore(RestoreRequest) returns (RestoreResponse)",
        "rpc Close(CloseRequest) returns (CloseResponse)",
        "rpc Exchange(stream OperationFrame) returns (stream ResultFrame)",
    ]


async def test_the_generic_client_calls_by_name_and_shows_refusals(start: Start) -> None:
    target = start().ready["listen"]
    async with ConnectClient(target) as client:
        channel = await client.establish(Identity.generate(os.urandom))
    request = f'{{"connectId": "{channel.connect_id}"}}'
    known = run("generic_client.py", target, "Restore", request)
    assert known.returncode == 0, known.stderr
    assert "expiresAtUnixMicros" in known.stdout
    unknown = run("generic_client.py", target, "Restore", '{"connectId": "42"}')
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("NOT_FOUND: no such channel")
