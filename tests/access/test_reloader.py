"""Files that are followed: no change is lost, whatever fails meanwhile."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from connect_actor import files
from connect_actor.access.tokens import TokenFile, new_token, token_line
from connect_actor.files import AccessFileError, Reloader, read_file
from tests.support.house import until


@pytest.fixture
async def reloader(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reloader]:
    """A reloader that looks often."""
    monkeypatch.setattr(files, "_SECONDS_BETWEEN_LOOKS", 0.01)
    reloader = Reloader()
    yield reloader
    await reloader.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that has not changed for long."""
    path = tmp_path / "file"
    path.write_text("content")
    return path


class Reads:
    """What reads a file, and what it has met; it fails until it is told not to."""

    def __init__(self, path: Path, failure: Exception | None = None) -> None:
        self.path = path
        self.failure = failure
        self.tries = 0
        self.read: list[str] = []

    async def __call__(self) -> bool:
        self.tries += 1
        if self.failure is not None:
            raise self.failure
        self.read.append(self.path.read_text())
        return self.read[-2:-1] != self.read[-1:]


@pytest.mark.parametrize("failure", [AccessFileError("it can't be read"), ZeroDivisionError()])
async def test_what_fails_is_tried_until_it_succeeds_and_shows_meanwhile(
    reloader: Reloader,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    # As if all had been written long ago: it is only the failure that has it read again.
    monkeypatch.setattr(files, "_COARSENESS", -1_000_000_000_000)
    reads = Reads(path, failure)
    reloader.follow("tokens", [path], reads, retry=0.01)
    write(path, "revoked")
    await until(lambda: reads.tries >= 5)
    assert reloader.failing() == {"tokens": True}
    # Nothing changes any more but that it can be read.
    reads.failure = None
    await until(lambda: not reloader.failing()["tokens"])
    assert reads.read[-1] == "revoked"
    # Five failures of one kind are one line.
    assert caplog.text.count("what was read before stays in force") == 1


async def test_a_failure_that_lasts_is_told_again_and_again_but_not_each_time(
    reloader: Reloader,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "_SECONDS_BETWEEN_REMINDERS", 0.0)
    reads = Reads(path, AccessFileError("it can't be read"))
    reloader.follow("tokens", [path], reads, retry=0.01)
    reloader.reload_all()
    await until(lambda: caplog.text.count("stays in force") >= 3)


async def test_one_that_fails_or_hangs_keeps_no_other_from_being_read(
    reloader: Reloader, path: Path
) -> None:
    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    reads = Reads(path)
    reloader.follow("certificates", [], Reads(path, AccessFileError("bad")))
    reloader.follow("keys", [], hang)
    reloader.follow("tokens", [path], reads)
    reloader.reload_all()
    write(path, "revoked")
    await until(lambda: reads.read[-1:] == ["revoked"])
    assert reloader.failing() == {"certificates": True, "keys": False, "tokens": False}


async def test_a_request_during_a_reading_is_followed_by_another(reloader: Reloader) -> None:
    begun, may_end = [], asyncio.Event()

    async def read() -> bool:
        begun.append(1)
        await may_end.wait()
        return True

    reloader.follow("keys", [], read)
    reloader.reload_all()
    await until(lambda: len(begun) == 1)
    reloader.reload_all()
    reloader.reload_all()
    may_end.set()
    await until(lambda: len(begun) == 2)


async def test_a_file_that_has_just_changed_is_read_once_more(
    reloader: Reloader, path: Path
) -> None:
    # Two changes within one time stamp look like one: nothing else would show the second.
    reads = Reads(path)
    reloader.follow("tokens", [path], reads)
    await until(lambda: reads.tries >= 2)


def write(path: Path, content: str) -> None:
    path.write_text(content)


def change(path: Path, link: Path, how: str) -> None:
    before = path.stat()
    other, other_link = path.with_name("other"), path.with_name("other link")
    write(other, "revoked")
    other_link.symlink_to(other)
    match how:
        case "its times set back":
            write(path, "revoked")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "another file":
            other.rename(path)
        case _:
            other_link.rename(link)


@pytest.mark.parametrize("how", ["its times set back", "another file", "a link"])
async def test_a_change_is_seen_however_it_is_made(
    reloader: Reloader, tmp_path: Path, path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it had been written long ago.
    monkeypatch.setattr(files, "_COARSENESS", -1_000_000_000_000)
    link = tmp_path / "link"
    link.symlink_to(path)
    reads = Reads(link)
    reloader.follow("tokens", [link], reads)
    change(path, link, how)
    await until(lambda: reads.read == ["revoked"])


async def test_a_pipe_is_not_waited_for(reloader: Reloader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reads = Reads(tmp_path / "pipe")
    reloader.follow("tokens", [tmp_path / "pipe"], reads)
    reloader.reload_all()
    await until(lambda: reloader.failing()["tokens"])
    assert reads.tries == 0


async def test_a_token_is_gone_once_its_file_can_be_read_again(
    reloader: Reloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    (tmp_path / "tokens").write_text(token_line("alice", token))
    tokens = TokenFile(tmp_path / "tokens")

    async def reload() -> bool:
        return tokens.reload()

    whole: Callable[[Path], bytes] = read_file

    def fail(path: Path) -> bytes:
        raise AccessFileError(f"{path} can't be read: Input/output error")

    monkeypatch.setattr("connect_actor.access.tokens.read_file", fail)
    reloader.follow("tokens", [tokens.path], reload)
    tokens.path.write_text("")
    await until(lambda: reloader.failing()["tokens"])
    assert tokens.holder_of(token) is not None
    monkeypatch.setattr("connect_actor.access.tokens.read_file", whole)
    await until(lambda: tokens.holder_of(token) is None)


async def test_what_is_under_way_ends_with_the_reloader(reloader: Reloader) -> None:
    ended = []

    async def hang() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        return True

    wait: Callable[[], Awaitable[bool]] = hang
    reloader.follow("keys", [], wait)
    reloader.reload_all()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await reloader.stop()
    assert ended == [1]


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(AccessFileError, match="more than 100 bytes"):
        read_file(Path("/dev/zero"), max_bytes=100)


def test_a_file_of_its_full_size_is_read(path: Path) -> None:
    assert read_file(path, max_bytes=7) == b"content"
    with pytest.raises(AccessFileError, match="more than 6 bytes"):
        read_file(path, max_bytes=6)


def test_what_everybody_may_change_is_not_believed(path: Path) -> None:
    for mode, allowed in ((0o644, True), (0o664, True), (0o646, False), (0o666, False)):
        path.chmod(mode)
        if allowed:
            assert read_file(path) == b"content"
        else:
            with pytest.raises(AccessFileError, match="chmod o-w"):
                read_file(path)


@pytest.mark.parametrize(
    ("owner", "us", "allowed", "refused"),
    [
        # Our own file is for us alone.
        (1_000, 1_000, (0o400, 0o600, 0o700), (0o640, 0o604, 0o440, 0o660, 0o644, 0o666, 0o601)),
        # A secret that root hands to a group, as Kubernetes does with fsGroup.
        (0, 1_000, (0o400, 0o600, 0o440, 0o640), (0o644, 0o444, 0o660, 0o604, 0o620, 0o610)),
        (0, 0, (0o400, 0o600, 0o440, 0o640), (0o644, 0o444, 0o660)),
        # A command run by root on the service's data.
        (1_000, 0, (0o400, 0o600, 0o640), (0o644, 0o660)),
    ],
)
def test_a_secret_is_for_its_owner_or_what_root_hands_to_a_group(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: int,
    us: int,
    allowed: tuple[int, ...],
    refused: tuple[int, ...],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: us)
    whole = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = list(whole(descriptor))
        status[4] = owner
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", fstat)
    for mode in allowed:
        path.chmod(mode)
        assert read_file(path, secret=True) == b"content"
    for mode in refused:
        path.chmod(mode)
        with pytest.raises(AccessFileError, match=rf"mode {mode:04o}\): chmod 6[04]0"):
            read_file(path, secret=True)
