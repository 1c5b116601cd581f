"""Benchmarks of cipher payloads and of bytes on their way through protobuf: copies and views."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connect_actor.protocol.payload import Payload
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.cases import Benchmark, Operation, Prepare
from connect_loadgen.bench.sessions import make_ends

__all__ = ["BENCHMARKS"]

_SIZES = (64, 512, 2_048)
_TAG = 16


def _payload(size: int) -> Payload:
    return make_ends().reply(bytes(size))


def _message(size: int) -> bytes:
    message = wire.CipherPayload()
    payload_to_wire(_payload(size), message)
    return message.SerializeToString()


@contextmanager
def _create(size: int, _: int) -> Iterator[Operation]:
    payload = _payload(size)

    def operation() -> bytes:
        message = wire.CipherPayload()
        payload_to_wire(payload, message)
        return message.SerializeToString()

    yield operation


@contextmanager
def _create_reused(size: int, _: int) -> Iterator[Operation]:
    payload, message = _payload(size), wire.CipherPayload()

    def operation() -> bytes:
        payload_to_wire(payload, message)
        return message.SerializeToString()

    yield operation


@contextmanager
def _process(size: int, _: int) -> Iterator[Operation]:
    serialised = _message(size)
    yield lambda: payload_from_wire(wire.CipherPayload.FromString(serialised))


@contextmanager
def _process_reused(size: int, _: int) -> Iterator[Operation]:
    serialised, message = _message(size), wire.CipherPayload()

    def operation() -> Payload:
        message.ParseFromString(serialised)
        return payload_from_wire(message)

    yield operation


@contextmanager
def _seal(size: int, _: int, *, reused: bool) -> Iterator[Operation]:
    # One key and nonce again and again: nothing of it leaves, and only its cost is wanted.
    cipher, nonce, plaintext = AESGCM(AESGCM.generate_key(256)), os.urandom(12), bytes(size)
    buffer = bytearray(size + _TAG)
    if reused:
        yield lambda: cipher.encrypt_into(nonce, plaintext, b"", buffer)
    else:
        yield lambda: cipher.encrypt(nonce, plaintext, b"")


@contextmanager
def _open(size: int, _: int, *, reused: bool) -> Iterator[Operation]:
    cipher, nonce = AESGCM(AESGCM.generate_key(256)), os.urandom(12)
    ciphertext = cipher.encrypt(nonce, bytes(size), b"")
    buffer = bytearray(size)
    if reused:
        view = memoryview(ciphertext)
        yield lambda: cipher.decrypt_into(nonce, view, b"", buffer)
    else:
        yield lambda: cipher.decrypt(nonce, ciphertext, b"")


@contextmanager
def _field(size: int, _: int, *, view: bool) -> Iterator[Operation]:
    """Ten kilobytes from a field, cut in two: as copies, or as views of the field's own bytes."""
    message = wire.CipherPayload(ciphertext=bytes(size))

    def copied() -> int:
        content = message.ciphertext
        return len(content[: size // 2]) + len(content[size // 2 :])

    def viewed() -> int:
        content = memoryview(message.ciphertext)
        return len(content[: size // 2]) + len(content[size // 2 :])

    yield viewed if view else copied


def _of_size(group: str, how: str, prepare: Prepare, size: int) -> Benchmark:
    def check(result: object) -> bool:
        match result:
            case Payload():
                return len(result.ciphertext) == size + _TAG
            case bytes():
                return len(result) >= size
            case int():
                return result in (size, size + _TAG)
        return False

    return Benchmark(
        f"{group} {size} B: {how}", prepare, check, is_baseline=how.startswith("fresh")
    )


BENCHMARKS: tuple[Benchmark, ...] = tuple(
    benchmark
    for size in _SIZES
    for benchmark in (
        _of_size("payload create", "fresh message", partial(_create, size), size),
        _of_size("payload create", "reused message", partial(_create_reused, size), size),
        _of_size("payload process", "fresh message", partial(_process, size), size),
        _of_size("payload process", "reused message", partial(_process_reused, size), size),
        _of_size("AES-GCM encrypt", "fresh memory", partial(_seal, size, reused=False), size),
        _of_size("AES-GCM encrypt", "encrypt_into", partial(_seal, size, reused=True), size),
        _of_size("AES-GCM decrypt", "fresh memory", partial(_open, size, reused=False), size),
        _of_size("AES-GCM decrypt", "decrypt_into", partial(_open, size, reused=True), size),
    )
) + tuple(
    _of_size("protobuf bytes", how, partial(_field, 10_240, view=view), 10_240)
    for how, view in (("fresh copies", False), ("views", True))
)
