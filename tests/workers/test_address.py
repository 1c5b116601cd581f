"""The address of all workers: theirs together, and nobody else's."""

import socket

import pytest

from connect_actor.network.addresses import ListenError
from connect_actor.workers.address import reserved


def listener(address: str) -> socket.socket:
    """Listen as a worker does."""
    host, _, port = address.rpartition(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, int(port)))
    made.listen()
    return made


def test_workers_share_an_address_that_a_second_service_does_not_get() -> None:
    with reserved("127.0.0.1:0") as address, listener(address), listener(address):
        with pytest.raises(ListenError, match=f"can't listen on {address}: the address is in use"):
            reserved(address).__enter__()
        with socket.socket() as alone, pytest.raises(OSError, match="in use"):
            alone.bind(("127.0.0.1", int(address.rpartition(":")[2])))


def test_an_address_is_kept_before_anybody_listens_and_free_once_it_is_let_go() -> None:
    with reserved("127.0.0.1:0") as address, pytest.raises(ListenError):
        reserved(address).__enter__()
    with reserved(address) as again:
        assert again == address


def test_connections_go_to_workers_only() -> None:
    with reserved("127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        with socket.socket() as early, pytest.raises(ConnectionRefusedError):
            early.connect((host, int(port)))
        with listener(address) as worker, socket.create_connection((host, int(port))):
            worker.accept()[0].close()


def test_a_name_has_one_port_on_all_its_addresses() -> None:
    with reserved("localhost:0") as address:
        assert address.startswith("localhost:")
        with pytest.raises(ListenError):
            reserved(address).__enter__()


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("no.such.host.invalid:0", "the host name can't be resolved"),
        ("203.0.113.5:0", "no interface of this machine has the address"),
    ],
)
def test_an_address_of_another_machine_is_refused(listen: str, why: str) -> None:
    with pytest.raises(ListenError, match=f"listen: can't listen on {listen}: {why}"):
        reserved(listen).__enter__()
