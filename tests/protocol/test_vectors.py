"""The golden vectors: what we write today is what we wrote then, and can be read from them alone.

If one of these fails, the protocol has changed: peers of an older version would not understand it.
"""

import hmac
import json
import random
import re
from typing import Any

import pytest

from connect_actor.errors import PeerError
from connect_actor.protocol import primitives, x3dh
from connect_actor.protocol.handshake import ChannelLimits, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.rpc.status import STATUSES
from connect_actor.v1 import connect_pb2 as wire
from tests.protocol.page_peer import PagePeer, RefusedError
from tests.protocol.vectors import PATH, make_vectors
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS, WEAK_IDENTITY_KEYS
from tests.support.channels import NOW, response_of

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
def test_a_peer_written_from_the_page_alone_follows_a_channel_to_the_byte(
    channel: dict[str, Any],
) -> None:
    """From the drawn bytes, in the order that the page gives them."""
    handshake, messages = channel["handshake"], channel["messages"]
    own = handshake["initiator"]
    draws = [h(value) for value in own["random"]]
    for message in messages:
        if message["sender"] == "initiator":
            turned = message["new_ratchet_private_key"]
            draws += [h(turned), h(message["nonce"])] if turned else [h(message["nonce"])]
    left = iter(draws)
    peer = PagePeer(h(own["identity_seed"]), lambda _: next(left), one_time_prekeys=1)
    assert peer.request.SerializeToString(deterministic=True) == h(handshake["request"])
    peer.complete(wire.EstablishResponse.FromString(h(handshake["response"])))
    assert peer.connect_id == int(handshake["connect_id"])
    assert peer.ends == h(handshake["associated_data"])
    assert peer.root == h(handshake["root_key_after_the_first_turn"])
    for step in channel["order"]:
        number = step.get("send", step.get("receive"))
        message = messages[number]
        ours = message["sender"] == "initiator"
        if ours and "send" in step:
            sealed = peer.seal(
                h(message["plaintext"]),
                int(message["request_id"]),
                int(message["created_at_unix_micros"]),
            )
            assert sealed.SerializeToString(deterministic=True) == h(message["wire"])
        elif not ours and "receive" in step:
            sealed = wire.CipherPayload.FromString(h(message["wire"]))
            assert peer.open(sealed) == h(message["plaintext"])
            with pytest.raises(RefusedError):
                peer.open(sealed)
    assert peer.root == h(channel["root_keys_at_the_end"]["initiator"])
    assert list(left) == []
    first, turned = (
        next(m for m in messages if m["sender"] == "responder"),
        next(m for m in messages if m["sender"] == "initiator" and m["new_ratchet_private_key"]),
    )
    assert (first["previous_chain_length"], messages[0]["previous_chain_length"]) == (0, 0)
    assert turned["previous_chain_length"] > 0


@pytest.mark.parametrize("every", [1, 2, 10])
@pytest.mark.parametrize("prekeys", [0, 1, 3])
def test_a_peer_written_from_the_page_alone_talks_to_the_service(every: int, prekeys: int) -> None:
    """With losses, late messages and replays, by chance; also without any one-time prekey."""
    draw = random.Random(every * 10 + prekeys)
    peer = PagePeer(draw.randbytes(32), draw.randbytes, prekeys)
    service = respond(
        peer.request,
        identity=Identity.generate(draw.randbytes),
        limits=ChannelLimits(dh_ratchet_every=every, one_time_prekeys=prekeys),
        now=NOW,
        random=draw.randbytes,
    )
    peer.complete(response_of(service))
    up, down = list[wire.CipherPayload](), list[wire.CipherPayload]()
    opened = 0
    for number in range(400):
        text = str(number).encode()
        match draw.randrange(4):
            case 0:
                up.append(peer.seal(text, number, -number))
            case 1:
                payload, _ = service.encrypt(text, now=NOW, random=draw.randbytes)
                down.append(wire.CipherPayload())
                payload_to_wire(payload, down[-1])
            case 2 if up:
                arrived = payload_from_wire(up.pop(draw.randrange(len(up))))
                service.decrypt(arrived, now=NOW)
                opened += 1
                with pytest.raises(PeerError):
                    service.decrypt(arrived, now=NOW)
            case 3 if down:
                late = down.pop(draw.randrange(len(down)))
                peer.open(late)
                opened += 1
                with pytest.raises(RefusedError):
                    peer.open(late)
        # Some are lost.
        for waiting in (up, down):
            if len(waiting) > 6:
                waiting.pop(draw.randrange(len(waiting)))
    assert opened > 50
    assert service.ratchet.receiving_turns > 1


# --- What must be refused -------------------------------------------------------------------------


def test_the_refused_keys_are_all_encodings_of_points_of_small_order() -> None:
    """Found from the curve's equation by ``weak_keys``, written down for other languages."""
    assert sorted(map(h, VECTORS["refused_keys"]["X25519"])) == sorted(WEAK_EXCHANGE_KEYS)
    assert sorted(map(h, VECTORS["refused_keys"]["Ed25519"])) == sorted(WEAK_IDENTITY_KEYS)
    assert all(map(primitives.is_weak_public_key, WEAK_EXCHANGE_KEYS))
    assert all(map(primitives.is_weak_identity_key, WEAK_IDENTITY_KEYS))


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda vector: vector["what"])
def test_a_signature_is_accepted_or_refused_as_its_vector_says(vector: dict[str, Any]) -> None:
    found = primitives.verify(
        h(vector["identity_key"]), h(vector["signature"]), h(vector["message"])
    )
    assert found is vector["accepted"]


def test_the_page_names_every_reason_that_the_wire_knows() -> None:
    page = (PATH.parents[3] / "docs" / "reference" / "protocol.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", page, re.MULTILINE)
    expected = {(rule.reason, rule.code.name) for rule in STATUSES.values()}
    assert set(rows) == expected
    assert len(rows) == len(expected)
