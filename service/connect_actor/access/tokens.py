"""Bearer tokens: who has which, by their SHA-256 alone.

The file has a line for each token: the principal's name, white space, the hash in hexadecimal. A
principal may have several, for changing them without a gap. A token is 256 random bits, so that a
plain hash of it can't be turned round by guessing.
"""

import secrets
import struct
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from connect_actor.access.principals import Principal, principal_named
from connect_actor.files import AccessFileError, read_file

__all__ = ["Holder", "TokenFile", "digest_of", "new_token", "token_line"]

_TOKEN_BYTES = 32
_DIGEST = struct.Struct("32s")
# Of a digest; the rest is compared in constant time.
_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Holder:
    """A token, by its hash, and whose it is."""

    principal: Principal
    digest: bytes


def new_token() -> str:
    """Return a fresh token."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> bytes:
    """Return what is stored of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def token_line(name: str, token: str) -> str:
    """Return the line that gives a principal a token."""
    return f"{name} {digest_of(token).hex()}"


class TokenFile:
    """The tokens of a file, as last read."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            AccessFileError: it can't be used.
        """
        self.path = path
        self._holders: dict[bytes, list[Holder]] = {}
        self.reload()

    def reload(self) -> bool:
        """Read the file anew; if it can't be used, what was read before stays.

        Returns:
            Whether there was anything new in it.

        Raises:
            AccessFileError: it can't be used; the message has a line's number, never its content.
        """
        holders: dict[bytes, list[Holder]] = {}
        try:
            lines = read_file(self.path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise AccessFileError(f"{self.path} is not UTF-8") from None
        for number, line in enumerate(lines, start=1):
            fields = line.partition("#")[0].split()
            if fields:
                holder = self._holder(number, fields)
                holders.setdefault(holder.digest[:_PREFIX], []).append(holder)
        is_new = holders != self._holders
        self._holders = holders
        return is_new

    def _holder(self, number: int, fields: list[str]) -> Holder:
        try:
            name, hexadecimal = fields
            principal = principal_named(name)
            (digest,) = _DIGEST.unpack(bytes.fromhex(hexadecimal))
        except (ValueError, struct.error):
            raise AccessFileError(
                f"{self.path}, line {number}: expected a name and a SHA-256 in hexadecimal, as"
                " 'connect-actor token NAME' prints them"
            ) from None
        return Holder(principal, digest)

    def holder_of(self, token: str) -> Holder | None:
        """Return whose a token is; None if it is nobody's."""
        return self._find(digest_of(token))

    def holds(self, holder: Holder) -> bool:
        """Say whether a token is still in the file, and still the same principal's."""
        return self._find(holder.digest) == holder

    def _find(self, digest: bytes) -> Holder | None:
        # The prefix of a hash tells nobody what to try next, and spares looking at every line.
        for holder in self._holders.get(digest[:_PREFIX], ()):
            if compare_digest(holder.digest, digest):
                return holder
        return None
