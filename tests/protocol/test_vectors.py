"""The golden vectors: what we write today is what we wrote then, and can be read from them alone.

If one of these fails, the protocol has changed: peers of an older version would not understand it.
"""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protos.connect_actor.v1 import connect_pb2 as wire
from service.protocol import primitives, x3dh
from service.protocol.handshake import connect_id_of
from service.protocol.primitives import KeyPair
from service.protocol.wire import payload_from_wire
from tests.protocol.vectors import PATH, make_vectors

VECTORS: dict[str, Any] = json.loads(PATH.read_text())
CHANNELS = VECTORS["channels"]

h = bytes.fromhex


def test_the_protocol_makes_the_golden_vectors() -> None:
    assert make_vectors() == VECTORS


def test_the_file_is_as_the_generator_writes_it() -> None:
    assert PATH.read_text() == json.dumps(VECTORS, indent=1) + "\n"


def test_the_steps_are_those_of_the_documents_formulas() -> None:
    chain, root = VECTORS["steps"]["chain"], VECTORS["steps"]["root"]
    key = h(chain["chain_key"])
    assert h(chain["message_key"]) == hmac.digest(key, b"\x01", "sha256")
    assert h(chain["next_chain_key"]) == hmac.digest(key, b"\x02", "sha256")
    # HKDF spelled out (RFC 5869): extract, then two blocks.
    extracted = hmac.digest(h(root["root_key"]), h(root["shared_secret"]), "sha256")
    info = b"connect-actor ratchet v1"
    first = hmac.digest(extracted, info + b"\x01", "sha256")
    second = hmac.digest(extracted, first + info + b"\x02", "sha256")
    assert (h(root["next_root_key"]), h(root["chain_key"])) == (first, second)


@pytest.mark.parametrize("vector", VECTORS["x3dh"], ids=["with a prekey", "without"])
def test_the_initiator_agrees_too(vector: dict[str, Any]) -> None:
    private, public = vector["private"], vector["public"]
    for name, key in private.items():
        assert KeyPair(h(key)).public_key == h(public[name])
    shared = x3dh.agree_as_initiator(
        KeyPair(h(private["IK_A"])),
        KeyPair(h(private["EK_A"])),
        h(public["IK_B"]),
        h(public["SPK_B"]),
        h(public["OPK_B"]) if "OPK_B" in public else None,
    )
    assert shared == h(vector["SK"])


@pytest.mark.parametrize("channel", CHANNELS, ids=["every 1", "every 2"])
def test_a_channel_can_be_followed_from_what_is_written_down(channel: dict[str, Any]) -> None:
    """As another implementation would: from the drawn bytes, by the formulas of the document."""
    handshake = channel["handshake"]
    request = wire.EstablishRequest.FromString(h(handshake["request"]))
    response = wire.EstablishResponse.FromString(h(handshake["response"]))
    assert connect_id_of(request) == response.connect_id == int(handshake["connect_id"])
    # Drawn in this order: X25519 identity, signed prekey, one-time prekeys; ephemeral, ratchet key.
    identity, _, _, ephemeral, ratchet_key = (
        KeyPair(h(value)) for value in handshake["initiator"]["random"]
    )
    assert (ephemeral.public_key, ratchet_key.public_key) == (
        request.ephemeral_key,
        request.ratchet_key,
    )
    _, signed_prekey, one_time_prekey, _ = (
        KeyPair(h(value)) for value in handshake["responder"]["random"]
    )
    assert signed_prekey.public_key == response.bundle.signed_prekey
    root = x3dh.agree_as_initiator(
        identity,
        ephemeral,
        response.bundle.exchange_identity_key,
        signed_prekey.public_key,
        one_time_prekey.public_key,
    )
    root, chain = primitives.step_root(root, ratchet_key.exchange(signed_prekey.public_key))
    assert root == h(handshake["root_key_after_the_first_turn"])
    bound = b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (
            b"connect-actor channel v1",
            response.connect_id.to_bytes(8, "big"),
            h(handshake["initiator"]["identity_key"]),
            identity.public_key,
            h(handshake["responder"]["identity_key"]),
            response.bundle.exchange_identity_key,
        )
    )
    associated_data = hashlib.sha256(bound).digest()
    assert associated_data == h(handshake["associated_data"])

    # One sequence of root keys and turns, seen from outside: each new key against the last one.
    newest = ratchet_key
    chains = {ratchet_key.public_key: chain}
    positions = {ratchet_key.public_key: 0}
    for message in channel["messages"]:
        if message["new_ratchet_private_key"]:
            turned = KeyPair(h(message["new_ratchet_private_key"]))
            root, chain = primitives.step_root(root, turned.exchange(newest.public_key))
            newest = turned
            chains[turned.public_key], positions[turned.public_key] = chain, 0
        key = h(message["dh_public_key"])
        assert positions[key] == message["ratchet_index"]
        message_key, chains[key] = primitives.step_chain(chains[key])
        positions[key] += 1
        header = (
            key
            + message["previous_chain_length"].to_bytes(4, "big")
            + message["ratchet_index"].to_bytes(4, "big")
            + int(message["request_id"]).to_bytes(8, "big")
            + int(message["created_at_unix_micros"]).to_bytes(8, "big")
        )
        assert header == h(message["header"])
        nonce, ciphertext = h(message["nonce"]), h(message["ciphertext"])
        plaintext = AESGCM(message_key).decrypt(nonce, ciphertext, associated_data + header)
        assert plaintext == h(message["plaintext"])
        sent = wire.CipherPayload.FromString(h(message["wire"]))
        assert payload_from_wire(sent).header.encode() == header
        assert (sent.nonce, sent.ciphertext) == (nonce, ciphertext)
    assert root.hex() in channel["root_keys_at_the_end"].values()
    assert len(chains) >= 4
