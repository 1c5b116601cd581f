"""All encodings, canonical or not, of the points of small order: keys that must be refused."""

__all__ = ["MALFORMED_KEYS", "WEAK_EXCHANGE_KEYS", "WEAK_IDENTITY_KEYS"]

_PRIME = 2**255 - 19


def _square_root_of_minus_one() -> int:
    return pow(2, (_PRIME - 1) // 4, _PRIME)


def _square_root(value: int) -> int | None:
    root = pow(value, (_PRIME + 3) // 8, _PRIME)
    for candidate in (root, root * _square_root_of_minus_one() % _PRIME):
        if candidate * candidate % _PRIME == value % _PRIME:
            return candidate
    return None


def _montgomery_coordinates() -> set[int]:
    """Return u of the points of order 1, 2, 4 and 8, found by doubling, not taken from a table.

    2P has u = (u^2 - 1)^2 / (4u (u^2 + A u + 1)) on the curve and its twist alike (RFC 7748: A is
    486662). So u = 0 is the point of order 2, u = 1 and -1 double to it, and what doubles to u = 1
    has order 8: (u^2 - 1)^2 = 4u (u^2 + A u + 1), which in w = u + 1/u is w^2 - 4w - 4A - 4 = 0.
    Nothing doubles to -1 (w has no root there).
    """
    found = {0, 1, _PRIME - 1}
    for target in (1, _PRIME - 1):
        root = _square_root((4 * target * target + 4 * (486662 * target + 1)) % _PRIME)
        for sign in (1, -1) if root is not None else ():
            w = (2 * target + sign * (root or 0)) % _PRIME
            half = _square_root((w * w - 4) % _PRIME)
            if half is not None:
                found |= {(w + half) * pow(2, -1, _PRIME) % _PRIME}
                found |= {(w - half) * pow(2, -1, _PRIME) % _PRIME}
    return found


def _encodings(coordinates: set[int]) -> list[bytes]:
    """Return each coordinate's encodings: also unreduced where 255 bits allow, and with bit 255."""
    return [
        (value + top_bit).to_bytes(32, "little")
        for coordinate in sorted(coordinates)
        for value in (coordinate, coordinate + _PRIME)
        if value < 1 << 255
        for top_bit in (0, 1 << 255)
    ]


WEAK_EXCHANGE_KEYS = _encodings(_montgomery_coordinates())
# y = (u - 1) / (u + 1) (RFC 7748, section 4.1); the neutral point, at infinity there, has y = 1.
WEAK_IDENTITY_KEYS = _encodings(
    {1}
    | {
        (u - 1) * pow(u + 1, -1, _PRIME) % _PRIME
        for u in _montgomery_coordinates()
        if (u + 1) % _PRIME
    }
)
MALFORMED_KEYS = [b"", b"\x09" * 31, b"\x09" * 33]
