"""Principals: who a caller is, and what stands for them in the journal."""

from dataclasses import dataclass
from hashlib import sha256

__all__ = ["ANONYMOUS", "MAX_NAME", "OWNER_SIZE", "Principal", "principal_named"]

MAX_NAME = 256
"""Characters of a principal's name. A SPIFFE ID may have more, but is short in practice."""
OWNER_SIZE = 16
"""Bytes that stand for a principal: nobody can choose a name that meets another's by chance."""

_LABEL = b"connect-actor owner v1"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody that channels belong to."""

    name: str
    owner: bytes
    """What the journal keeps of the name; empty for the anonymous principal."""


ANONYMOUS = Principal("anonymous", b"")
"""Everybody, where callers are not authenticated."""


def principal_named(name: str) -> Principal:
    """Return the principal of a name.

    Raises:
        ValueError: it is empty, too long, or holds white space or what can't be printed.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or any(map(str.isspace, name)):
        raise ValueError(f"a principal's name has 1 to {MAX_NAME} characters and no white space")
    return Principal(name, sha256(_LABEL + name.encode()).digest()[:OWNER_SIZE])
