"""Mutations: from a valid input to one that is nearly so, the same for the same seed.

Most know something of the format: protobuf's fields, HTTP/2's frames, lines of text. Bytes flipped
at random rarely get beyond the first check of a length.
"""

import random
from collections.abc import Callable, Iterable, Sequence

__all__ = ["MAX_INPUT", "Mutator", "fields_of", "frames_of", "varint"]

# Enough for what grows with the size to show; the service takes a megabyte.
MAX_INPUT = 64 * 1024

_EXTREMES = (0, 1, 2**7, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_LENGTHS = (0, 1, 11, 12, 13, 15, 16, 17, 31, 32, 33, 64, 255, 4_096)
_WORDS = (b"inf", b"nan", b"-1", b"0", b"1e999", b"9" * 5_000, b"\xff\xfe", b"\x00", b"", b"true")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER = 9

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


def varint(value: int) -> bytes:
    """Encode as protobuf does."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(10):
        if at >= len(data):
            return None
        value |= (data[at] & 0x7F) << 7 * shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    return None


def fields_of(message: bytes) -> list[tuple[int, int, bytes]] | None:
    """Return tag, type and content of each field of a message, or None if it is none."""
    fields = []
    at = 0
    while at < len(message):
        tag = _read_varint(message, at)
        if tag is None:
            return None
        number, at = tag
        kind = number & 7
        if kind == _VARINT:
            value = _read_varint(message, at)
            end = None if value is None else value[1]
        elif kind == _BYTES:
            length = _read_varint(message, at)
            end = None if length is None else length[1] + length[0]
            at = at if length is None else length[1]
        else:
            end = {_FIXED64: at + 8, _FIXED32: at + 4}.get(kind)
        if end is None or end > len(message):
            return None
        fields.append((number >> 3, kind, message[at:end]))
        at = end
    return fields


def frames_of(conversation: bytes) -> list[bytes]:
    """Return the frames of one side of an HTTP/2 conversation, the preface being the first."""
    at = len(_PREFACE) if conversation.startswith(_PREFACE) else 0
    frames = [conversation[:at]]
    while at < len(conversation):
        end = at + _FRAME_HEADER + int.from_bytes(conversation[at : at + 3], "big")
        frames.append(conversation[at:end])
        at = end
    return frames


def _join(fields: Iterable[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        varint(number << 3 | kind) + (varint(len(content)) if kind == _BYTES else b"") + content
        for number, kind, content in fields
    )


class Mutator:
    """Makes inputs out of a corpus."""

    def __init__(self, seed: int, corpus: Sequence[bytes], style: str) -> None:
        """Mutate what is in the corpus, by what ``style`` knows: message, frames, text, bytes."""
        self._random = random.Random(seed)
        self._corpus = corpus
        self._mutations = _GENERIC + _BY_STYLE[style]

    def next(self) -> bytes:
        """Return the next input."""
        chosen = self._random
        data = chosen.choice(self._corpus)
        # Mostly one or two: the more is changed the earlier it is refused.
        for _ in range(min(1 + int(chosen.expovariate(1.0)), 8)):
            data = chosen.choice(self._mutations)(self, data)[:MAX_INPUT]
        return data

    # --- Of bytes ---------------------------------------------------------------------------------

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        flipped = bytearray(data)
        flipped[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def _overwrite(self, data: bytes) -> bytes:
        at = self._random.randint(0, len(data))
        size = self._random.choice((1, 2, 4, 8))
        what = self._random.choice((bytes(size), b"\xff" * size, self._random.randbytes(size)))
        return data[:at] + what + data[at + size :]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._random.randint(0, len(data))]

    def _insert(self, data: bytes) -> bytes:
        at = self._random.randint(0, len(data))
        return data[:at] + self._random.randbytes(self._random.choice(_LENGTHS)) + data[at:]

    def _cut(self, data: bytes) -> bytes:
        begin, end = sorted(self._random.randint(0, len(data)) for _ in range(2))
        return data[:begin] + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._corpus)
        return (
            data[: self._random.randint(0, len(data))]
            + other[self._random.randint(0, len(other)) :]
        )

    def _repeat(self, data: bytes) -> bytes:
        begin, end = sorted(self._random.randint(0, len(data)) for _ in range(2))
        return data[:begin] + data[begin:end] * self._random.choice((2, 3, 100)) + data[end:]

    # --- Of a protobuf message --------------------------------------------------------------------

    def _field(self, data: bytes, depth: int = 0) -> bytes:
        """Change one field, of the message or of a message within."""
        fields = fields_of(data)
        if not fields:
            return self._flip(data)
        at = self._random.randrange(len(fields))
        number, kind, content = fields[at]
        if kind == _BYTES and depth < 8 and fields_of(content) and self._random.random() < 0.7:
            fields[at] = (number, kind, self._field(content, depth + 1))
            return _join(fields)
        choice = self._random.randrange(8)
        if choice == 0:
            del fields[at]
        elif choice == 1:
            fields[at:at] = [fields[at]] * self._random.choice((1, 2, 300))
        elif choice == 2:
            self._random.shuffle(fields)
        elif choice == 3:
            fields.insert(at, self._random.choice((self._unknown(), *fields)))
        elif choice == 4:
            # An empty field, so many times that it matters what each costs.
            fields[at:at] = [(number, kind, b"" if kind == _BYTES else content)] * 5_000
        elif choice == 5:
            fields[at] = (self._random.randint(1, 12), kind, content)
        elif choice == 6 and kind == _BYTES:
            wanted = self._random.choice(_LENGTHS)
            fields[at] = (number, kind, content[:wanted].ljust(wanted, b"\x00"))
        else:
            fields[at] = (number, kind, self._other_value(kind, content))
        return _join(fields)

    def _other_value(self, kind: int, content: bytes) -> bytes:
        if kind == _VARINT:
            return varint(self._random.choice((*_EXTREMES, self._random.getrandbits(12))))
        if kind == _BYTES:
            return self._random.choice((self._flip, self._overwrite, self._truncate))(content)
        return self._random.choice(_EXTREMES).to_bytes(8, "little")[: len(content)]

    def _unknown(self) -> tuple[int, int, bytes]:
        number = self._random.choice((15, 16, 1_000, 2**29 - 1))
        return number, _BYTES, self._random.randbytes(self._random.choice(_LENGTHS))

    def _lie(self, data: bytes) -> bytes:
        """Say a length that is not so."""
        fields = fields_of(data)
        if not fields:
            return self._overwrite(data)
        at = self._random.randrange(len(fields))
        before, (number, _, content), after = fields[:at], fields[at], fields[at + 1 :]
        length = varint(self._random.choice(_EXTREMES))
        return _join(before) + varint(number << 3 | _BYTES) + length + content + _join(after)

    def _nest(self, data: bytes) -> bytes:
        """Put the message deep into itself, or into groups."""
        number = self._random.randint(1, 6)
        if self._random.random() < 0.5:
            opened, closed = varint(number << 3 | _GROUP), varint(number << 3 | _END_GROUP)
            depth = self._random.choice((1, 99, 101, 5_000))
            return opened * depth + data + closed * depth
        for _ in range(self._random.choice((1, 99, 101, 300))):
            data = varint(number << 3 | _BYTES) + varint(len(data)) + data
        return data

    def _long_varint(self, data: bytes) -> bytes:
        """Write a number in more bytes than it needs, or than are allowed."""
        at = self._random.randint(0, len(data))
        return data[:at] + b"\x80" * self._random.choice((1, 9, 10, 200)) + b"\x01" + data[at:]

    # --- Of HTTP/2 frames -------------------------------------------------------------------------

    def _frame(self, data: bytes) -> bytes:
        frames = frames_of(data)
        at = self._random.randrange(len(frames))
        frame = bytearray(frames[at])
        choice = self._random.randrange(5)
        if choice == 0:
            del frames[at]
        elif choice == 1:
            frames[at:at] = [bytes(frame)] * self._random.choice((1, 2, 200))
        elif choice == 2:
            self._random.shuffle(frames)
        elif len(frame) >= _FRAME_HEADER:
            # Type, flags or stream.
            frame[self._random.randrange(3, _FRAME_HEADER)] = self._random.getrandbits(8)
            frames[at] = bytes(frame)
        return b"".join(frames)

    def _frame_body(self, data: bytes) -> bytes:
        """Change what a frame holds, and keep its length true."""
        frames = frames_of(data)
        at = self._random.randrange(len(frames))
        header, body = frames[at][:_FRAME_HEADER], frames[at][_FRAME_HEADER:]
        if len(header) == _FRAME_HEADER and at:
            change = self._random.choice((Mutator._flip, Mutator._insert, Mutator._cut))
            body = change(self, body)
            frames[at] = len(body).to_bytes(3, "big") + header[3:] + body
        return b"".join(frames)

    # --- Of text ----------------------------------------------------------------------------------

    def _word(self, data: bytes) -> bytes:
        """Put something surprising in the place of a value."""
        lines = data.split(b"\n")
        at = self._random.randrange(len(lines))
        name, equals, _ = lines[at].partition(b"=")
        lines[at] = name + equals + self._random.choice(_WORDS)
        return b"\n".join(lines)

    def _line(self, data: bytes) -> bytes:
        lines = data.split(b"\n")
        at = self._random.randrange(len(lines))
        if self._random.random() < 0.5:
            lines[at:at] = [lines[at]] * self._random.choice((1, 200))
        else:
            self._random.shuffle(lines)
        return b"\n".join(lines)

    def _brackets(self, data: bytes) -> bytes:
        at = self._random.randint(0, len(data))
        return data[:at] + self._random.choice((b"[", b"{", b"a.", b'"""')) * 3_000 + data[at:]


_Mutation = Callable[[Mutator, bytes], bytes]

_GENERIC: tuple[_Mutation, ...] = (
    Mutator._flip,
    Mutator._overwrite,
    Mutator._truncate,
    Mutator._insert,
    Mutator._cut,
    Mutator._splice,
    Mutator._repeat,
)
_BY_STYLE: dict[str, tuple[_Mutation, ...]] = {
    # The more often the more it finds: what a field holds.
    "message": (Mutator._field,) * 12 + (Mutator._lie, Mutator._nest, Mutator._long_varint),
    "frames": (Mutator._frame, Mutator._frame_body) * 4,
    "text": (Mutator._word, Mutator._line) * 4 + (Mutator._brackets,),
    "bytes": (),
}
