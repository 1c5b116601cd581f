"""Golden vectors of the protocol, for implementations in other languages and for our own changes.

    python -m tests.protocol.vectors        writes tests/protocol/data/vectors.json anew

Everything is derived from seeded randomness, and every random byte that was drawn is written down
beside what was made of it: another implementation needs no generator of ours. Bytes are hex, 64-bit
numbers are decimal strings (JSON readers may round them).
"""

import json
from pathlib import Path
from typing import Any

from connect_actor.protocol import primitives, x3dh
from connect_actor.protocol.changes import Sent, encode_change
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import ChannelKeys, Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.v1 import connect_pb2 as wire
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS, WEAK_IDENTITY_KEYS
from tests.support.channels import NOW, response_of, seeded

__all__ = ["PATH", "make_vectors"]

# Of Ed25519's base point (RFC 8032): S and S + L satisfy the same equation.
_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493

PATH = Path(__file__).parent / "data" / "vectors.json"

# Who speaks, or (hearer, number of the message): losses, late ones and several turns.
_CONVERSATION: list[str | tuple[str, int]] = [
    *("initiator", "initiator", ("responder", 1), "responder", ("initiator", 2)),
    *("initiator", ("responder", 3), ("responder", 0), "responder", "responder"),
    *(("initiator", 5), "initiator", ("responder", 6), ("initiator", 4), "responder"),
    *("initiator", ("initiator", 7), ("responder", 8), "initiator", ("responder", 9)),
]


class _Recorded:
    """A source of randomness that remembers what it gave."""

    def __init__(self, seed: int) -> None:
        self._source = seeded(seed)
        self.drawn: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self.drawn.append(self._source(size))
        return self.drawn[-1]


def _steps() -> dict[str, Any]:
    draw = seeded(11)
    chain_key, root_key, secret = draw(32), draw(32), draw(32)
    message_key, next_chain_key = primitives.step_chain(chain_key)
    next_root_key, first_chain_key = primitives.step_root(root_key, secret)
    return {
        "chain": {
            "chain_key": chain_key.hex(),
            "message_key": message_key.hex(),
            "next_chain_key": next_chain_key.hex(),
        },
        "root": {
            "root_key": root_key.hex(),
            "shared_secret": secret.hex(),
            "next_root_key": next_root_key.hex(),
            "chain_key": first_chain_key.hex(),
        },
    }


def _agreement(*, prekey: bool) -> dict[str, Any]:
    draw = seeded(12)
    names = ("IK_A", "EK_A", "IK_B", "SPK_B", "OPK_B")
    pairs = {name: KeyPair(draw(32)) for name in names}
    one_time = pairs["OPK_B"] if prekey else None
    shared = x3dh.agree_as_responder(
        pairs["IK_B"],
        pairs["SPK_B"],
        one_time,
        pairs["IK_A"].public_key,
        pairs["EK_A"].public_key,
    )
    used = names if prekey else names[:-1]
    return {
        "private": {name: pairs[name].private_key.hex() for name in used},
        "public": {name: pairs[name].public_key.hex() for name in used},
        "SK": shared.hex(),
    }


def _private_keys(keys: ChannelKeys) -> dict[str, Any]:
    return {
        "one_time_prekeys": {
            str(prekey_id): pair.private_key.hex()
            for prekey_id, pair in keys.one_time_prekeys.items()
        },
    }


def _message(sender: str, payload: Payload, plaintext: bytes, change: Sent) -> dict[str, Any]:
    message = wire.CipherPayload()
    payload_to_wire(payload, message)
    header = payload.header
    return {
        "sender": sender,
        "plaintext": plaintext.hex(),
        "new_ratchet_private_key": change.ratchet_private_key.hex() or None,
        "request_id": str(header.request_id),
        "created_at_unix_micros": str(header.created_at),
        "dh_public_key": header.ratchet_key.hex(),
        "previous_chain_length": header.previous_chain_length,
        "ratchet_index": header.message_number,
        "nonce": payload.nonce.hex(),
        "header": header.encode().hex(),
        "ciphertext": payload.ciphertext.hex(),
        "wire": message.SerializeToString(deterministic=True).hex(),
        "stored_change": encode_change(change).hex(),
    }


def _channel(every: int) -> dict[str, Any]:
    initiator_identity = Identity.generate(seeded(21))
    responder_identity = Identity.generate(seeded(22))
    random = _Recorded(23)
    initiation = Initiation.begin(initiator_identity, random, 1)
    offered = list(random.drawn)
    random.drawn.clear()
    service = respond(
        initiation.request,
        identity=responder_identity,
        limits=ChannelLimits(dh_ratchet_every=every, one_time_prekeys=2),
        now=NOW,
        random=random,
    )
    answered = list(random.drawn)
    response = response_of(service)
    peer = initiation.complete(response, pinned_identity=responder_identity.public_key)
    handshake = {
        "initiator": {
            "identity_seed": initiator_identity.private_key.hex(),
            "identity_key": initiator_identity.public_key.hex(),
            "random": [value.hex() for value in offered],
            "remaining_private_keys": _private_keys(peer.channel_keys),
        },
        "responder": {
            "identity_seed": responder_identity.private_key.hex(),
            "identity_key": responder_identity.public_key.hex(),
            "random": [value.hex() for value in answered],
            "remaining_private_keys": _private_keys(service.channel_keys),
        },
        "now_unix_micros": str(NOW),
        "request": peer.handshake.request.hex(),
        "response": peer.handshake.response.hex(),
        "connect_id": str(response.connect_id),
        "associated_data": service.ratchet.associated_data.hex(),
        "root_key_after_the_first_turn": service.ratchet.root_key.hex(),
    }
    ends: dict[str, Session] = {"initiator": peer, "responder": service}
    messages: list[dict[str, Any]] = []
    payloads: list[Payload] = []
    order: list[dict[str, Any]] = []
    for step in _CONVERSATION:
        if isinstance(step, str):
            plaintext = f"message {len(payloads)} of the {step}".encode()
            payload, change = ends[step].encrypt(
                plaintext,
                now=NOW + len(payloads),
                random=random,
                request_id=2**64 - 1 - len(payloads),
            )
            order.append({"send": len(payloads)})
            messages.append(_message(step, payload, plaintext, change))
            payloads.append(payload)
        else:
            hearer, number = step
            _, received = ends[hearer].decrypt(payloads[number], now=NOW)
            order.append({"receive": number, "stored_change": encode_change(received).hex()})
    return {
        "dh_ratchet_every": every,
        "handshake": handshake,
        "messages": messages,
        "order": order,
        "root_keys_at_the_end": {
            name: session.ratchet.root_key.hex() for name, session in ends.items()
        },
    }


def _signatures() -> list[dict[str, Any]]:
    """Return signatures over one message, and whether they are accepted."""
    identity = Identity.generate(seeded(31))
    message = b"a bundle's content"
    signature = identity.sign(message)
    point, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    neutral = bytes([1]) + bytes(31)
    cases = {
        "of RFC 8032": (identity.public_key, signature),
        "with S + L, the same once more": (
            identity.public_key,
            point + (scalar + _GROUP_ORDER).to_bytes(32, "little"),
        ),
        "with R of small order": (identity.public_key, neutral + bytes(32)),
        "under a key of small order, which fits any message": (neutral, neutral + bytes(32)),
        "over the digest of the message": (
            identity.public_key,
            identity.sign(primitives.digest(message)),
        ),
    }
    return [
        {
            "what": what,
            "identity_key": key.hex(),
            "message": message.hex(),
            "signature": signed.hex(),
            "accepted": what == "of RFC 8032",
        }
        for what, (key, signed) in cases.items()
    ]


def make_vectors() -> dict[str, Any]:
    """Return all vectors, as JSON holds them."""
    return {
        "about": "docs/reference/protocol.md; written by: python -m tests.protocol.vectors",
        "steps": _steps(),
        "x3dh": [_agreement(prekey=True), _agreement(prekey=False)],
        "channels": [_channel(1), _channel(2)],
        "refused_keys": {
            "X25519": [key.hex() for key in WEAK_EXCHANGE_KEYS],
            "Ed25519": [key.hex() for key in WEAK_IDENTITY_KEYS],
        },
        "signatures": _signatures(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make_vectors(), indent=1) + "\n")
