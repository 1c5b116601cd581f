"""Which addresses are this machine's own, so that clear text on them meets nobody else."""

from ipaddress import ip_address

__all__ = ["is_loopback"]


def is_loopback(listen: str) -> bool:
    """Say whether only this machine can reach what listens at a host:port or ``unix:`` path."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return True
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # Some other name; where it leads is for the resolver to say, and can change.
        return False
