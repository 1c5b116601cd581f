"""No text that the protocol gives of itself holds a key: repr, str, exceptions, tracebacks."""

import dataclasses
import logging
import pprint
import traceback
from collections.abc import Iterator

import pytest

from connect_actor.errors import ConnectError
from connect_actor.protocol import ratchet as ratchet_module
from connect_actor.protocol.changes import InconsistentChangeError, Received, Sent
from connect_actor.protocol.handshake import ChannelLimits, Initiation
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from tests.protocol.refusals import with_header
from tests.support.channels import NOW, Ends, make_ends, seeded


def secrets_of(session: Session) -> set[bytes]:
    """Return every secret that a session holds, found field by field."""
    keys, ratchet = session.channel_keys, session.ratchet
    pairs = [keys.exchange_identity, keys.signed_prekey, *keys.one_time_prekeys.values()]
    if ratchet.own_key is not None:
        pairs.append(ratchet.own_key)
    secrets = {pair.private_key for pair in pairs if pair.private_key} | {ratchet.root_key}
    for chain in (ratchet.sending, ratchet.receiving):
        if chain is not None:
            secrets.add(chain.chain_key)
    for skipped in ratchet.skipped:
        secrets |= set(skipped.keys.values())
    if session.deliveries is not None:
        secrets |= {kept.message_key for kept in session.deliveries.encode().kept}
    return secrets


def spellings(secret: bytes) -> Iterator[str]:
    """Return how a secret might show: hex, Python's and a list's way, also in part."""
    for part in (secret[:8], secret[-8:]):
        yield part.hex()
        yield repr(part)[2:-1]
        yield ", ".join(map(str, part))


def assert_hidden(secrets: set[bytes], *texts: str) -> None:
    assert all(len(secret) == 32 for secret in secrets)
    for text in texts:
        for secret in secrets:
            for spelling in spellings(secret):
                assert spelling not in text


def parts_of(value: object) -> Iterator[object]:
    """Walk through everything that a protocol object holds and that has a text of its own."""
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from parts_of(getattr(value, field.name))


def talkative() -> Ends:
    """Make ends with every kind of secret at hand."""
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, redelivery_window=4))
    ends.up()
    ends.round_trip()
    ends.service.encrypt(b"once", now=NOW, random=ends.random, idempotency_key=b"a key")
    ends.up()
    ends.at_service(ends.up())
    ends.down()
    assert ends.service.ratchet.skipped
    assert ends.service.ratchet.own_key is not None
    return ends


def is_bare(value: object) -> bool:
    """Say whether a value is a bare secret or a collection of them: hidden by what holds it."""
    return isinstance(value, bytes | dict | list | tuple)


@pytest.mark.parametrize("end", ["service", "peer"])
def test_no_protocol_object_shows_a_key(end: str) -> None:
    session: Session = getattr(talkative(), end)
    secrets = secrets_of(session)
    assert len(secrets) >= 14
    shown = [part for part in parts_of(session) if not is_bare(part)]
    shown += list(session.ratchet.skipped)
    shown += list(session.channel_keys.one_time_prekeys.values())
    assert len(shown) >= 10
    for part in shown:
        assert_hidden(secrets, repr(part), str(part), f"{part}", pprint.pformat(part))


def test_an_identity_and_an_initiation_show_no_key() -> None:
    random = seeded(1)
    identity = Identity.generate(random)
    initiation = Initiation.begin(identity, random)
    keys = initiation._keys
    assert keys is not None
    secrets = {
        identity.private_key,
        keys.ephemeral.private_key,
        keys.ratchet.private_key,
        keys.channel.exchange_identity.private_key,
        keys.channel.signed_prekey.private_key,
        *(pair.private_key for pair in keys.channel.one_time_prekeys.values()),
    }
    for value in (identity, initiation, keys, keys.channel):
        assert_hidden(secrets, repr(value), str(value))


def test_a_key_pair_shows_its_public_half_only() -> None:
    pair = KeyPair(seeded(1)(32))
    assert repr(pair) == f"KeyPair(public_key={pair.public_key.hex()})"


def test_steps_not_yet_in_effect_show_no_key() -> None:
    # They are local variables of what may raise, and tracebacks can show locals.
    ends = make_ends()
    receiving = ends.service.ratchet.receiving
    assert receiving is not None
    advance = ratchet_module._advance(receiving, 2)
    assert_hidden(
        {advance.message_key, advance.chain_key, *advance.skipped.values()}, repr(advance)
    )
    turn = ends.service.ratchet._derive_turn(KeyPair(seeded(1)(32)), receiving.ratchet_key)
    assert_hidden({turn.root_key, turn.own_key.private_key, turn.chain.chain_key}, repr(turn))


def test_a_change_shows_no_private_key() -> None:
    secret = seeded(1)(32)
    assert repr(Sent(7, secret)) == "Sent(message_number=7, turned=True)"
    assert_hidden({secret}, repr(Sent(7, secret)), str(Sent(7, secret)), f"{Sent(7, secret)}")


def test_no_refusal_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ends = talkative()
    payload = ends.up(b"the plaintext")
    secrets = secrets_of(ends.service) | secrets_of(ends.peer)
    texts = []
    for altered in (
        payload._replace(nonce=b""),
        payload._replace(ciphertext=bytes(40)),
        with_header(payload, message_number=2**31),
        with_header(payload, message_number=0),
        with_header(payload, message_number=-1),
        with_header(payload, request_id=-1),
        with_header(payload, ratchet_key=bytes(32)),
        with_header(payload, ratchet_key=KeyPair(seeded(3)(32)).public_key),
    ):
        with pytest.raises(ConnectError) as refusal:
            ends.service.decrypt(altered, now=NOW)
        texts += [str(refusal.value), repr(refusal.value)]
        texts.append("".join(traceback.format_exception(refusal.value)))
    for change in (Sent(9), Sent(9, seeded(4)(32)), Received(0), Received(9, bytes(32), 3)):
        with pytest.raises(InconsistentChangeError) as failure:
            talkative().service.apply(change)
        texts.append("".join(traceback.format_exception(failure.value)))
        texts.append(repr(failure.value))
    assert len(texts) == 32
    assert_hidden(secrets, *texts, caplog.text)
    assert not any("the plaintext" in text for text in texts)
