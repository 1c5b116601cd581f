"""What the process's memory holds stays there."""

import json
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.fuzz.driver import CORPUS
from tests.support.process import PATIENCE, Start, run_python


def test_an_aborted_service_leaves_no_core(start: Start, tmp_path: Path) -> None:
    service = start()
    pid = service.process.pid
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]
    before = set(Path.cwd().iterdir())
    os.kill(pid, signal.SIGABRT)
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    assert (status.si_code, status.si_status) == (os.CLD_KILLED, signal.SIGABRT)
    assert set(Path.cwd().iterdir()) == before
    assert not list(tmp_path.rglob("core*"))


def test_the_kernel_is_told_to_make_no_core_and_let_nobody_attach() -> None:
    program = (
        "import ctypes, resource; from connect_actor.process.hardening import forbid_dumps;"
        "forbid_dumps();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert run_python(program) == "0 (0, 0)\n"


_LOCKED = """
import os, resource, sys, threading
from pathlib import Path
from connect_actor.process.hardening import lock_memory

limit, user = int(sys.argv[1]), sys.argv[2]
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
except ValueError:
    sys.exit(print("this limit can't be raised"))
if user == "plain":
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
lock_memory()

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

resident = status("VmRSS")
content = bytearray(64 * 1024 * 1024)
threads = [threading.Thread(target=str) for _ in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(status("VmLck") > 0, status("VmRSS") - resident < 128 * 1024, len(content))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's limits need root")
@pytest.mark.parametrize(
    ("limit", "user", "locked"),
    [
        (64 * 1024, "root", True),  # by CAP_IPC_LOCK
        (64 * 1024, "plain", False),
        (8 * 1024 * 1024, "plain", False),
        (0, "plain", False),
        (resource.RLIM_INFINITY, "plain", True),
        (resource.RLIM_INFINITY, "root", True),
    ],
)
def test_memory_is_locked_where_that_makes_no_allocation_fail(
    limit: int,
    user: str,
    locked: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    found = run_python(_LOCKED, str(limit), user)
    if "can't be raised" in found:
        pytest.skip(found)
    assert found == f"{locked} True {64 * 1024 * 1024}\n"


def test_a_service_has_its_memory_locked_or_says_why_not(start: Start) -> None:
    service = start()
    status = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    (locked,) = [int(line.split()[1]) for line in status if line.startswith("VmLck:")]
    assert service.signal(signal.SIGTERM) == 0
    assert (locked > 0) is ("memory is not locked" not in service.log)


def test_a_debugger_can_be_allowed(start: Start) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("the limit is 0 here, whoever sets it")
    service = start("--allow-debugger=true")
    limits = Path(f"/proc/{service.process.pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[5] != "0"


def test_a_strangers_garbage_is_neither_quoted_in_the_log_nor_makes_it_anything_but_json(
    start: Start,
) -> None:
    service = start("--log-level=debug")
    host, _, port = service.ready["listen"].rpartition(":")
    valid = (CORPUS / "connection" / "binary-metadata").read_bytes()
    for garbage in (valid, valid.replace(b"POST", b"P\xffST")):
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4_096):
                pass
    assert service.signal(signal.SIGTERM) == 0
    events = [json.loads(line)["event"] for line in service.log.splitlines()]
    assert "stopped" in events
    assert not [event for event in events if "Invalid encoding" in event]
