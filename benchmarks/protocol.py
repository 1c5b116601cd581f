"""``python -m benchmarks.protocol``: our session beside ``doubleratchet`` and ``vodozemac``.

The same job for each: two ends in one process, messages in memory, every plaintext compared with
what went in. *One chain*: one end encrypts a thousand messages, the other decrypts them. *Ping-
pong*: the ends take turns, a message each, so that a classic ratchet turns with every message; a
figure is one message encrypted and decrypted.

``doubleratchet`` is a library to be completed. It runs twice: with the AEAD that it recommends
(AES-256-CBC, HKDF and HMAC), and with ours (AES-256-GCM); all else is the same as ours (X25519,
HKDF, HMAC). ``vodozemac`` is Olm in Rust (AES-256-CBC and HMAC) behind its Python binding. Ours
runs with ``dh_ratchet_every`` 1, which turns as often as the others do, and with 10, its default.

Times are CPU time of the process. In each round the contenders run in another order. Takes some
20 s.
"""

import gc
import json
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import doubleratchet
import vodozemac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from doubleratchet.recommended import (
    HashFunction,
    aead_aes_hmac,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rounds import better_by, require, rounds_from_arguments, spread
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire

CHAIN_MESSAGES = 1_000
PING_PONG_MESSAGES = 500
SIZES = (64, 1_024)
_MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class End:
    """One end of a conversation. A message is whatever the implementation makes of a plaintext."""

    encrypt: Callable[[bytes], Any]
    decrypt: Callable[[Any], bytes]
    state: Callable[[], bytes]
    """The stored form, as the implementation makes it."""


Pair = tuple[End, End]


# --- Ours -----------------------------------------------------------------------------------------


def _ours(dh_ratchet_every: int) -> Pair:
    initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom)
    service = respond(
        initiation.request,
        identity=Identity.generate(os.urandom),
        limits=ChannelLimits(dh_ratchet_every=dh_ratchet_every),
        now=_now(),
        random=os.urandom,
    )
    peer = initiation.complete(wire.EstablishResponse.FromString(service.handshake.response))
    return _our_end(peer), _our_end(service)


def _now() -> int:
    return time.time_ns() // 1_000


def _our_end(session: Session) -> End:
    return End(
        lambda plaintext: session.encrypt(plaintext, now=_now(), random=os.urandom)[0],
        lambda payload: session.decrypt(payload, now=_now())[0],
        session.encode,
    )


# --- doubleratchet --------------------------------------------------------------------------------


class _RootKdf(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"benchmark root"


class _MessageKdf(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class _RecommendedAead(aead_aes_hmac.AEAD):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"benchmark message"


class _AesGcm(doubleratchet.AEAD):
    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        return AESGCM(key).decrypt(ciphertext[:12], ciphertext[12:], associated_data)


class _DoubleRatchet(doubleratchet.DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: doubleratchet.Header) -> bytes:
        return (
            associated_data
            + header.ratchet_pub
            + header.previous_sending_chain_length.to_bytes(4, "big")
            + header.sending_chain_length.to_bytes(4, "big")
        )


_CHOICES: Final[Mapping[str, Any]] = {
    "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    "root_chain_kdf": _RootKdf,
    "message_chain_kdf": _MessageKdf,
    "message_chain_constant": b"\x01\x02",
    "dos_protection_threshold": CHAIN_MESSAGES,
    "max_num_skipped_message_keys": CHAIN_MESSAGES,
}
_ASSOCIATED_DATA = bytes(32)
_PICKLE_KEY = bytes(32)
_Result = TypeVar("_Result")


def _complete(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine that waits for nothing; an event loop would only add to its time."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    raise RuntimeError("the library waits for something: measure it on an event loop")


def _doubleratchet(aead: type[doubleratchet.AEAD]) -> Pair:
    choices = {**_CHOICES, "aead": aead}
    curve = diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet
    shared_key, own_key = os.urandom(32), os.urandom(32)
    first, message = _complete(
        _DoubleRatchet.encrypt_initial_message(
            shared_secret=shared_key,
            recipient_ratchet_pub=curve._derive_pub(own_key),  # noqa: SLF001 - it has no public way
            message=b"first",
            associated_data=_ASSOCIATED_DATA,
            **choices,
        )
    )
    second, plaintext = _complete(
        _DoubleRatchet.decrypt_initial_message(
            shared_secret=shared_key,
            own_ratchet_priv=own_key,
            message=message,
            associated_data=_ASSOCIATED_DATA,
            **choices,
        )
    )
    require(plaintext == b"first")
    return _doubleratchet_end(first), _doubleratchet_end(second)


def _doubleratchet_end(ratchet: _DoubleRatchet) -> End:
    return End(
        lambda plaintext: _complete(ratchet.encrypt_message(plaintext, _ASSOCIATED_DATA)),
        lambda message: _complete(ratchet.decrypt_message(message, _ASSOCIATED_DATA)),
        lambda: json.dumps(ratchet.json).encode(),
    )


# --- vodozemac ------------------------------------------------------------------------------------


def _vodozemac() -> Pair:
    alice, bob = vodozemac.Account(), vodozemac.Account()
    bob.generate_one_time_keys(1)
    (one_time_key,) = bob.one_time_keys.values()
    first = alice.create_outbound_session(bob.curve25519_key, one_time_key)
    message = first.encrypt(b"first").to_pre_key()
    if message is None:
        raise RuntimeError("vodozemac's first message is no pre-key message")
    second, plaintext = bob.create_inbound_session(alice.curve25519_key, message)
    require(plaintext == b"first")
    return _vodozemac_end(first), _vodozemac_end(second)


def _vodozemac_end(session: vodozemac.Session) -> End:
    return End(session.encrypt, session.decrypt, lambda: session.pickle(_PICKLE_KEY).encode())


# --- The job --------------------------------------------------------------------------------------

# Both of ours do the same on one chain.
_OURS = "ours (1)"
CONTENDERS: Final[Mapping[str, Callable[[], Pair]]] = {
    _OURS: lambda: _ours(1),
    "ours (10)": lambda: _ours(10),
    "doubleratchet": lambda: _doubleratchet(_RecommendedAead),
    "doubleratchet, GCM": lambda: _doubleratchet(_AesGcm),
    "vodozemac": _vodozemac,
}

Figures = dict[str, float]
"""CPU seconds a message, by what was done."""


def _measure(make: Callable[[], Pair]) -> Figures:
    figures = {}
    for size in SIZES:
        first, second = make()
        # An answer, so that both ends know each other and every later message is an ordinary one.
        require(first.decrypt(second.encrypt(b"answer")) == b"answer")
        plaintexts = [os.urandom(size) for _ in range(CHAIN_MESSAGES)]
        gc.collect()
        begun = time.process_time()
        messages = [first.encrypt(plaintext) for plaintext in plaintexts]
        encrypted = time.process_time()
        opened = [second.decrypt(message) for message in messages]
        decrypted = time.process_time()
        require(opened == plaintexts)
        figures[f"encrypt, {size:,} B, one chain"] = (encrypted - begun) / CHAIN_MESSAGES
        figures[f"decrypt, {size:,} B, one chain"] = (decrypted - encrypted) / CHAIN_MESSAGES
        figures[f"both, {size:,} B, ping-pong"] = _ping_pong(
            first, second, plaintexts[:PING_PONG_MESSAGES]
        )
    return figures


def _ping_pong(first: End, second: End, plaintexts: Sequence[bytes]) -> float:
    opened = []
    gc.collect()
    begun = time.process_time()
    for plaintext in plaintexts:
        opened.append(first.decrypt(second.encrypt(plaintext)))
        first, second = second, first
    seconds = (time.process_time() - begun) / len(plaintexts)
    require(opened == plaintexts)
    return seconds


def _table(rounds: Sequence[Mapping[str, Figures]]) -> Table:
    table = Table(title=f"{len(rounds)} rounds: median (lowest to highest)", box=box.SIMPLE_HEAD)
    table.add_column("one message")
    table.add_column("CPU", justify="right")
    table.add_column(f"{_OURS} is better by", justify="right")
    for job in rounds[0][_OURS]:
        values = {
            name: [figures[name][job] * _MICROSECONDS for figures in rounds] for name in CONTENDERS
        }
        table.add_section()
        table.add_row(job, style="bold")
        for name in CONTENDERS:
            table.add_row(
                f"  {name}",
                spread(values[name], "µs"),
                "" if name == _OURS else better_by(values[name], values[_OURS]),
            )
    return table


def _in_some_order() -> list[str]:
    return random.sample(list(CONTENDERS), len(CONTENDERS))


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        rounds = [
            {name: _measure(CONTENDERS[name]) for name in _in_some_order()}
            for _ in progress.track(range(count), description="rounds")
        ]
    console.print(_table(rounds))


if __name__ == "__main__":
    main()
