"""Where calls come from, as far as one caller can be told from another by it."""

from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import unquote

__all__ = ["address_of"]

# Bytes that the addresses of one IPv6 caller usually have in common.
_IPV6_PREFIX = 8


def address_of(peer: str) -> str:
    """Return the address behind gRPC's name for a connection, without its port.

    Addresses of one IPv6 network (/64) count as one. All connections of a Unix socket are one
    caller's.
    """
    return _without_port(peer.rpartition(":")[0])


@lru_cache(maxsize=4_096)
def _without_port(address: str) -> str:
    kind, _, host = address.partition(":")
    if kind != "ipv6":
        return address
    try:
        found = IPv6Address(unquote(host).strip("[]").partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return f"ipv4:{found.ipv4_mapped}"
    return f"ipv6:{found.packed[:_IPV6_PREFIX].hex()}"
