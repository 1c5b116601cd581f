"""Bearer tokens: who is let in, what a refusal tells, and what becomes of a revoked one."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest

from connect_actor.access.gate import Gate
from connect_actor.access.principals import principal_named
from connect_actor.access.tokens import TokenFile, digest_of, new_token, token_line
from connect_actor.client import ConnectClient, Identity, error_of
from connect_actor.errors import ChannelNotFoundError, UnauthenticatedError
from connect_actor.files import AccessFileError
from connect_actor.observe.tracing import REQUEST_ID
from connect_actor.v1 import connect_pb2 as wire
from tests.access.conftest import Open

ALICE, BOB = new_token(), new_token()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(
        f"# who may call\n\n{token_line('alice', ALICE)}\n{token_line('bob', BOB)} # b\n"
    )
    return path


def test_a_token_is_long_random_and_stored_as_its_hash_alone(path: Path) -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) >= 43 for token in tokens)
    assert ALICE not in path.read_text()
    assert re.fullmatch(r"alice [0-9a-f]{64}", token_line("alice", ALICE))


def test_a_principal_may_have_several_tokens(path: Path) -> None:
    second = new_token()
    path.write_text(path.read_text() + token_line("alice", second))
    tokens = TokenFile(path)
    for token in (ALICE, second):
        holder = tokens.holder_of(token)
        assert holder is not None
        assert holder.principal == principal_named("alice")


def test_a_byte_order_mark_before_the_lines_is_passed_over(path: Path) -> None:
    token = new_token()
    path.write_text(f"\ufeff{token_line('alice', token)}\n")
    holder = TokenFile(path).holder_of(token)
    assert holder is not None
    assert holder.principal == principal_named("alice")


def test_hashes_that_begin_alike_are_told_apart(path: Path) -> None:
    digest = digest_of(ALICE)
    near = digest[:31] + bytes([digest[31] ^ 1])
    path.write_text(f"mallory {near.hex()}\n{token_line('alice', ALICE)}\n")
    holder = TokenFile(path).holder_of(ALICE)
    assert holder is not None
    assert holder.principal.name == "alice"


@pytest.mark.parametrize(
    "line",
    ["alice", f"alice {'0' * 63}", f"alice {'0' * 66}", "alice xyz", f"a b {'0' * 64}", "\x07 00"],
)
def test_a_line_that_makes_no_sense_is_named_by_its_number_and_nothing_is_changed(
    path: Path, line: str
) -> None:
    tokens = TokenFile(path)
    path.write_text(f"# one\n{line}\n")
    with pytest.raises(AccessFileError, match="line 2: expected a name") as caught:
        tokens.reload()
    assert line not in str(caught.value)
    assert tokens.holder_of(ALICE) is not None
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AccessFileError, match="UTF-8"):
        tokens.reload()


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "\n", "x" * 257, "\x00"])
def test_a_name_that_could_be_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 256 visible characters"):
        principal_named(name)
    assert principal_named("x" * 256)


def replace(path: Path, content: str) -> None:
    path.write_text(content)


def metadata(*values: str) -> list[tuple[str, str]]:
    return [("authorization", value) for value in values]


@pytest.mark.parametrize(
    "sent",
    [
        [],
        metadata(""),
        metadata("Bearer"),
        metadata("Bearer "),
        metadata(f"Bearer {ALICE[:-1]}"),
        metadata(f"Bearer {ALICE}x"),
        metadata(f"Basic {ALICE}"),
        metadata(ALICE),
        metadata(f"Bearer {ALICE}", f"Bearer {BOB}"),
        metadata(f"Bearer {digest_of(ALICE).hex()}"),
        metadata("Bearer " + "x" * 4_000),
    ],
)
async def test_every_refusal_is_the_same_and_comes_before_anything_else(
    open_door: Open, path: Path, sent: list[tuple[str, str]]
) -> None:
    door = await open_door(Gate(tokens=TokenFile(path)))
    reads = door.house.committer.statistics.rounds
    async with ConnectClient(door.address) as client:
        calls: list[Awaitable[object]] = [
            client.stub.Establish(wire.EstablishRequest(), metadata=sent),
            client.stub.Restore(wire.RestoreRequest(connect_id=1), metadata=sent),
            # Nothing is sent: grpcio's client tells of a failed send rather than of the refusal.
            client.stub.Exchange(metadata=sent).read(),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.details() == (
                "send 'authorization: Bearer TOKEN' with a valid token"
            )
    assert door.house.committer.statistics.rounds == reads
    assert door.servicer.statistics.refusals["UNAUTHENTICATED"] == 3


async def test_a_stream_of_the_client_tells_a_refusal_whenever_it_comes(
    open_door: Open, path: Path
) -> None:
    door = await open_door(Gate(tokens=TokenFile(path)))
    async with ConnectClient(door.address, token=new_token()) as client:
        for _ in range(20):
            async with client.exchange() as stream:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.call([wire.Operation()])
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_says_whose_a_channel_is(open_door: Open, path: Path) -> None:
    door = await open_door(Gate(tokens=TokenFile(path)))
    async with (
        ConnectClient(door.address, token=ALICE) as alice,
        ConnectClient(door.address, token=BOB) as bob,
    ):
        channel = await alice.establish(Identity.generate(os.urandom))
        assert channel.open(await channel.encrypt(b"x")) == b"x"
        restore = wire.RestoreRequest(connect_id=channel.connect_id)
        answers = []
        for request in (restore, wire.RestoreRequest(connect_id=123)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bob.stub.Restore(request)
            error = caught.value
            # Each call has an id of its own.
            trailing = [
                entry for entry in error.trailing_metadata() or () if entry[0] != REQUEST_ID
            ]
            answers.append((error.code(), error.details(), trailing))
        assert answers[0] == answers[1]
        async with bob.exchange() as stream:
            results = await stream.call([wire.Operation(restore=restore)])
        assert isinstance(error_of(results[0].error), ChannelNotFoundError)
        async with alice.exchange() as stream:
            results = await stream.call([wire.Operation(restore=restore)])
        assert results[0].HasField("restore")
    assert await door.house.owner(channel.connect_id) == principal_named("alice").owner


async def test_the_client_shows_its_token_in_every_call(open_door: Open, path: Path) -> None:
    door = await open_door(Gate(tokens=TokenFile(path)))
    async with ConnectClient(door.address, token=ALICE) as alice:
        channel = await alice.establish(Identity.generate(os.urandom))
        assert channel.open(await channel.encrypt(b"down")) == b"down"
        assert await channel.decrypt(channel.seal(b"up")) == b"up"
        await channel.acknowledge()
        await channel.restore()
        async with alice.exchange() as stream:
            restore = wire.RestoreRequest(connect_id=channel.connect_id)
            (result,) = await stream.call([wire.Operation(restore=restore)])
            assert result.HasField("restore")
        await channel.close()


async def test_a_stream_ends_when_its_token_is_revoked_and_no_other(
    open_door: Open, path: Path
) -> None:
    tokens = TokenFile(path)
    door = await open_door(Gate(tokens=tokens))
    async with (
        ConnectClient(door.address, token=ALICE) as alice,
        ConnectClient(door.address, token=BOB) as bob,
    ):
        channel = await alice.establish(Identity.generate(os.urandom))
        restore = wire.Operation(restore=wire.RestoreRequest(connect_id=channel.connect_id))
        frames: asyncio.Queue[wire.OperationFrame] = asyncio.Queue()

        async def sent() -> AsyncIterator[wire.OperationFrame]:
            while True:
                yield await frames.get()

        stream = alice.stub.Exchange(sent())
        frames.put_nowait(wire.OperationFrame(operations=[restore]))
        frame = await stream.read()
        assert isinstance(frame, wire.ResultFrame)
        assert frame.results[0].HasField("restore")
        async with bob.exchange() as others:
            await others.call([restore])
            replace(path, token_line("bob", BOB))
            tokens.reload()
            door.servicer.end_revoked()
            with pytest.raises(grpc.aio.AioRpcError, match="no longer valid"):
                await stream.read()
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
            await others.call([restore])
        with pytest.raises(UnauthenticatedError):
            await channel.encrypt(b"x")


def test_a_token_that_changes_hands_ends_its_streams(path: Path) -> None:
    tokens = TokenFile(path)
    holder = tokens.holder_of(ALICE)
    assert holder is not None
    assert tokens.holds(holder)
    path.write_text(token_line("mallory", ALICE))
    tokens.reload()
    assert not tokens.holds(holder)
