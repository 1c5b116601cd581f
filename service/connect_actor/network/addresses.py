"""Network addresses as settings write them: parsed, checked and listened on in one way.

``host:port``, where the host is a name, an IPv4 address, or an IPv6 address in brackets, with or
without a zone (``[fe80::1%eth0]:50051``); or a Unix socket: ``unix:path``, ``unix:///path``,
``unix-abstract:name``.
"""

import errno
import os
import re
import socket
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

__all__ = [
    "AddressError",
    "HostPort",
    "ListenError",
    "UnixSocket",
    "parse",
    "parse_host_port",
    "parse_target",
    "why_not_listening",
]

_MAX_PORT = 2**16 - 1
# sockaddr_un holds 108 bytes, the last of which ends the path.
_MAX_PATH_BYTES = 107
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_EXPECTED = "expected host:port"


class AddressError(ValueError):
    """The text is not an address; the message says what to write instead."""


class ListenError(Exception):
    """An address can't be listened on; the message names the setting, the address and why."""

    @classmethod
    def of(cls, setting: str, address: str, error: OSError) -> "ListenError":
        """Return the error of a setting's address from what the system said."""
        return cls(f"{setting}: can't listen on {address}: {_reason(error)}")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A TCP address."""

    host: str
    """Without brackets."""
    port: int
    """0 to 65535; 0 lets the kernel pick a free one."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The host as an IP address, an IPv4 one inside of IPv6 unpacked; None for a name."""
        try:
            found = ip_address(self.host)
        except ValueError:
            return None
        return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach what listens there.

        A name other than localhost is not: where it leads is up to the resolver and can change.
        """
        if self.ip is None:
            return self.host.lower().rstrip(".") == "localhost"
        return self.ip.is_loopback

    @property
    def reachable(self) -> "HostPort":
        """Where what listens there is found from its own machine."""
        if self.ip is None or not self.ip.is_unspecified:
            return self
        return replace(self, host="127.0.0.1" if self.ip.version == 4 else "::1")

    def with_port(self, port: int) -> "HostPort":
        """Return the same host with another port."""
        return replace(self, port=port)

    def resolved(self) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
        """Return the family and socket address of each address to listen on.

        Raises:
            OSError: the name can't be resolved.
        """
        found = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return [(family, tuple(address)) for family, _, _, _, address in found]


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix domain socket."""

    text: str
    """As gRPC takes it."""
    name: str
    """As the kernel takes it: a path, or NUL and a name for an abstract one."""

    def __str__(self) -> str:
        return self.text

    @property
    def is_served(self) -> bool:
        """Whether a process listens there; a path that one has left behind is free."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            try:
                probe.connect(self.name)
            except BlockingIOError:  # more connections wait than it may have waiting
                return True
            except OSError:
                return False
        return True

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach what listens there: always."""
        return True

    @property
    def reachable(self) -> "UnixSocket":
        """Where what listens there is found from its own machine."""
        return self

    def with_port(self, _: int) -> "UnixSocket":
        """Return the same: it has no port."""
        return self


def parse(text: str) -> HostPort | UnixSocket:
    """Return the address that a text stands for.

    Raises:
        AddressError: it stands for none.
    """
    if text.startswith(("unix:", "unix-abstract:")):
        return _parse_unix(text)
    return parse_host_port(text)


def parse_target(text: str, *, tcp_only: bool = False) -> HostPort | UnixSocket:
    """Return an address to connect to, likewise.

    Raises:
        AddressError: it stands for none, or has port 0.
    """
    found = parse_host_port(text) if tcp_only else parse(text)
    if isinstance(found, HostPort) and not found.port:
        raise AddressError("port 0 can be listened on, not connected to: give the service's port")
    return found


def parse_host_port(text: str) -> HostPort:
    """Return the TCP address that a text stands for.

    Raises:
        AddressError: it stands for none.
    """
    if text.startswith(("unix:", "unix-abstract:")):
        raise AddressError(f"{_EXPECTED}, not a Unix socket")
    if any(char.isspace() or not char.isprintable() for char in text):
        raise AddressError(f"{_EXPECTED} without spaces or control characters")
    host, separator, port = text.rpartition(":")
    if not separator or (text.startswith("[") and text.endswith("]")):
        raise AddressError(f"{_EXPECTED}: the port is missing")
    if not host:
        raise AddressError(f"{_EXPECTED}: the host is missing (0.0.0.0 or [::] is every interface)")
    return HostPort(_parse_host(host, text), _parse_port(port))


def _parse_host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        if not _is_ipv6(host[1:-1]):
            raise AddressError(f"{_EXPECTED}: {host} is not an IPv6 address in brackets")
        return host[1:-1]
    # With its port or without.
    for bare in (host, text):
        if _is_ipv6(bare):
            raise AddressError(f"{_EXPECTED}: an IPv6 address goes in brackets, [{bare}]:PORT")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)
        except ValueError:
            raise AddressError(f"{_EXPECTED}: {host} is not an IPv4 address") from None
    elif not _NAME.fullmatch(host):
        raise AddressError(
            f"{_EXPECTED}: {host} is not a host name, an IPv4 address, or an IPv6 address in"
            " brackets"
        )
    return host


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _parse_port(port: str) -> int:
    if not port:
        raise AddressError(f"{_EXPECTED}: the port is missing")
    if not (port.isascii() and port.isdecimal()):
        raise AddressError(f"{_EXPECTED}: {port} is not a port number")
    # Digits without end are no number that Python would read.
    if len(port.lstrip("0")) > len(str(_MAX_PORT)) or int(port) > _MAX_PORT:
        raise AddressError(f"ports go up to {_MAX_PORT}")
    return int(port)


def _parse_unix(text: str) -> UnixSocket:
    scheme, _, path = text.partition(":")
    if scheme == "unix" and path.startswith("//"):
        if not path.startswith("///"):
            raise AddressError("expected unix:path, or unix:///path for an absolute one")
        path = path[2:]
    if not path or "\0" in path:
        raise AddressError(f"expected {scheme}:{'path' if scheme == 'unix' else 'name'}")
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise AddressError(f"a Unix socket's path or name has at most {_MAX_PATH_BYTES} bytes")
    return UnixSocket(text, path if scheme == "unix" else f"\0{path}")


def why_not_listening(address: HostPort | UnixSocket) -> OSError | None:
    """Return what the system says to listening there; None if it agrees by now.

    For libraries that fail without saying why.
    """
    try:
        if isinstance(address, UnixSocket):
            _try_to_bind(socket.AF_UNIX, address.name)
            if not address.name.startswith("\0"):
                Path(address.name).unlink()
        else:
            for family, each in address.resolved():
                _try_to_bind(family, each)
    except OSError as error:
        return error
    return None


def _try_to_bind(family: socket.AddressFamily, address: str | tuple[object, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections of one before that are not quite gone don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen()


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name can't be resolved ({error.strerror})"
    reasons = {
        errno.EADDRINUSE: "the address is in use",
        errno.EADDRNOTAVAIL: "no interface of this machine has the address",
        errno.EACCES: "permission denied (ports below 1024 need a privilege)",
    }
    return reasons.get(error.errno or 0) or error.strerror or str(error)
