"""Principals: who a caller is, and what stands for them in the journal."""

import re
from dataclasses import dataclass
from hashlib import sha256
from unicodedata import is_normalized

__all__ = ["ANONYMOUS", "MAX_NAME", "OWNER_SIZE", "Principal", "principal_named"]

MAX_NAME = 256
"""Characters of a principal's name. A SPIFFE ID may have more, but is short in practice."""
OWNER_SIZE = 16
"""Bytes that stand for a principal: nobody can choose a name that meets another's by chance."""

_LABEL = b"connect-actor owner v1"
# Unicode's default ignorable characters that Python calls printable and NFKC keeps, and the blank
# Braille pattern: two names that differ by one look the same.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)


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
        ValueError: it is empty, too long, not in Unicode's form NFKC, or holds white space or
            characters that don't show: control, direction and other invisible characters.
    """
    if (
        not 0 < len(name) <= MAX_NAME
        or not name.isprintable()
        or any(map(str.isspace, name))
        or not is_normalized("NFKC", name)
        or _INVISIBLE.search(name)
    ):
        raise ValueError(
            f"a principal's name has 1 to {MAX_NAME} visible characters in Unicode's form NFKC,"
            " and no white space"
        )
    return Principal(name, sha256(_LABEL + name.encode()).digest()[:OWNER_SIZE])
