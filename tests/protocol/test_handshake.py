"""The handshake: what both ends agree on, what each signature covers, what is refused."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from connect_actor.errors import (
    AuthenticationFailedError,
    ChannelExistsError,
    ChannelExpiredError,
    HandshakeRefusedError,
)
from connect_actor.protocol import primitives, x3dh
from connect_actor.protocol.handshake import (
    ChannelLimits,
    Initiation,
    connect_id_of,
    encode_request,
    respond,
)
from connect_actor.protocol.keys import ChannelKeys, Identity, PrekeyBundle
from connect_actor.protocol.limits import MAX_ONE_TIME_PREKEYS
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import bundle_from_wire
from connect_actor.v1 import connect_pb2 as wire
from tests.protocol.weak_keys import MALFORMED_KEYS, WEAK_EXCHANGE_KEYS, WEAK_IDENTITY_KEYS
from tests.support.channels import NOW, Ends, make_ends, response_of, seeded

SERVICE = Identity.generate(seeded(1_000))
PEER = Identity.generate(seeded(1_001))
BAD_EXCHANGE_KEYS = [*WEAK_EXCHANGE_KEYS, *MALFORMED_KEYS]
BAD_IDENTITY_KEYS = [*WEAK_IDENTITY_KEYS, *MALFORMED_KEYS]


def begin(seed: int = 1, one_time_prekeys: int = 2) -> Initiation:
    return Initiation.begin(PEER, seeded(seed), one_time_prekeys)


def answered(
    request: wire.EstablishRequest, seed: int = 2, identity: Identity = SERVICE
) -> Session:
    return respond(
        request,
        identity=identity,
        limits=ChannelLimits(one_time_prekeys=2),
        now=NOW,
        random=seeded(seed),
    )


def initiator_signature(bundle: PrekeyBundle, request: wire.EstablishRequest) -> bytes:
    """Sign as the initiator does; spelled out here, so that the tests know the layout too."""
    return PEER.sign(
        bundle.content(parts(b"initiator", request.ephemeral_key, request.ratchet_key)),
    )


def sign_again(request: wire.EstablishRequest, response: wire.EstablishResponse) -> None:
    """Sign a changed response as a malicious responder can."""
    digest = primitives.digest(
        bundle_from_wire(request.bundle).content(
            parts(b"initiator", request.ephemeral_key, request.ratchet_key)
        )
    )
    context = parts(
        b"responder",
        digest,
        response.one_time_prekey_id.to_bytes(4, "big"),
        response.expires_at_unix_micros.to_bytes(8, "big"),
        response.dh_ratchet_every.to_bytes(4, "big"),
    )
    response.bundle.signature = SERVICE.sign(bundle_from_wire(response.bundle).content(context))


def parts(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


# --- Agreement --------------------------------------------------------------------------------


@pytest.mark.parametrize("of_service", [0, 1, 10, 100])
@pytest.mark.parametrize("of_peer", [0, 1, 10, 100])
def test_both_ends_agree_with_any_number_of_prekeys(of_peer: int, of_service: int) -> None:
    random = seeded(1)
    initiation = Initiation.begin(PEER, random, of_peer)
    service = respond(
        initiation.request,
        identity=SERVICE,
        limits=ChannelLimits(one_time_prekeys=of_service),
        now=NOW,
        random=random,
    )
    response = response_of(service)
    assert response.HasField("one_time_prekey_id") == (of_service > 0)
    assert len(response.bundle.one_time_prekeys) == of_service
    peer = initiation.complete(response, pinned_identity=SERVICE.public_key)
    assert peer.ratchet.root_key == service.ratchet.root_key
    assert peer.handshake == service.handshake
    assert peer.expires_at == service.expires_at
    Ends(peer, service, random).round_trip()


@pytest.mark.parametrize("prekey", [True, False])
def test_x3dh_agrees_and_every_key_has_a_part_in_it(*, prekey: bool) -> None:
    random = seeded(1)
    a_identity, a_ephemeral, b_identity, b_signed, b_prekey, other = (
        KeyPair.generate(random) for _ in range(6)
    )

    def initiated(
        identity: KeyPair = a_identity,
        ephemeral: KeyPair = a_ephemeral,
        peer_identity: KeyPair = b_identity,
        signed: KeyPair = b_signed,
        one_time: KeyPair = b_prekey,
    ) -> bytes:
        return x3dh.agree_as_initiator(
            identity,
            ephemeral,
            peer_identity.public_key,
            signed.public_key,
            one_time.public_key if prekey else None,
        )

    agreed = x3dh.agree_as_responder(
        b_identity,
        b_signed,
        b_prekey if prekey else None,
        a_identity.public_key,
        a_ephemeral.public_key,
    )
    assert initiated() == agreed
    assert len(agreed) == 32
    assert initiated(identity=other) != agreed
    assert initiated(ephemeral=other) != agreed
    assert initiated(peer_identity=other) != agreed
    assert initiated(signed=other) != agreed
    assert (initiated(one_time=other) != agreed) == prekey


def test_the_channels_id_is_the_same_at_both_ends_and_63_bits() -> None:
    for seed in range(20):
        initiation = begin(seed)
        response = response_of(answered(initiation.request))
        assert response.connect_id == connect_id_of(initiation.request)
        assert 0 < response.connect_id < 2**63


def test_two_requests_name_two_channels() -> None:
    assert len({connect_id_of(begin(seed).request) for seed in range(50)}) == 50


def test_the_expiry_is_the_lifetime_after_now() -> None:
    session = respond(
        begin().request,
        identity=SERVICE,
        limits=ChannelLimits(lifetime=1.5),
        now=NOW,
        random=seeded(2),
    )
    assert session.expires_at == NOW + 1_500_000


def test_a_session_serves_until_its_expiry_and_no_longer() -> None:
    ends = make_ends()
    expiry = ends.peer.expires_at
    before = copy.deepcopy(ends.peer)
    payload = ends.down()
    with pytest.raises(ChannelExpiredError):
        ends.peer.encrypt(b"", now=expiry, random=ends.random)
    with pytest.raises(ChannelExpiredError):
        ends.peer.decrypt(payload, now=expiry)
    assert ends.peer == before
    ends.peer.encrypt(b"", now=expiry - 1, random=ends.random)
    assert ends.peer.decrypt(payload, now=expiry - 1)[0] == b"down"


# --- Signatures -------------------------------------------------------------------------------


def flip(value: bytes, position: int = 0) -> bytes:
    return value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]


def flip_field(
    message: wire.PrekeyBundle | wire.OneTimePrekey | wire.EstablishRequest,
    name: str,
    position: int = 0,
) -> None:
    setattr(message, name, flip(getattr(message, name), position))


def swap_prekeys(bundle: wire.PrekeyBundle) -> None:
    first, second = bundle.one_time_prekeys
    copied = wire.OneTimePrekey()
    copied.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(copied)


def bump(message: wire.PrekeyBundle | wire.OneTimePrekey, name: str) -> None:
    setattr(message, name, getattr(message, name) + 7)


# One for every field of a bundle.
BUNDLE_CHANGES: dict[str, Callable[[wire.PrekeyBundle], object]] = {
    "identity key": lambda b: (
        setattr(b, "identity_key", SERVICE.public_key)
        if b.identity_key != SERVICE.public_key
        else setattr(b, "identity_key", PEER.public_key)
    ),
    "exchange identity": lambda b: flip_field(b, "exchange_identity_key"),
    "signed prekey id": lambda b: bump(b, "signed_prekey_id"),
    "signed prekey": lambda b: flip_field(b, "signed_prekey"),
    "a prekey's id": lambda b: bump(b.one_time_prekeys[1], "id"),
    "a prekey": lambda b: flip_field(b.one_time_prekeys[1], "public_key"),
    "a prekey less": lambda b: b.one_time_prekeys.pop(),
    "a prekey more": lambda b: b.one_time_prekeys.add(id=9, public_key=b.signed_prekey),
    "prekeys swapped": swap_prekeys,
    "signature, first half": lambda b: flip_field(b, "signature"),
    "signature, second half": lambda b: flip_field(b, "signature", 32),
    "signature cut": lambda b: setattr(b, "signature", b.signature[:-1]),
    "no signature": lambda b: setattr(b, "signature", b""),
    "nothing left": lambda b: b.Clear(),
}


@pytest.mark.parametrize("change", BUNDLE_CHANGES.values(), ids=BUNDLE_CHANGES)
def test_a_request_changed_in_any_field_is_refused(
    change: Callable[[wire.PrekeyBundle], object],
) -> None:
    request = begin().request
    answered(request)
    change(request.bundle)
    with pytest.raises(HandshakeRefusedError):
        answered(request)


@pytest.mark.parametrize("name", ["ephemeral_key", "ratchet_key"])
def test_a_request_with_another_ephemeral_or_ratchet_key_is_refused(name: str) -> None:
    request = begin().request
    flip_field(request, name)
    with pytest.raises(HandshakeRefusedError, match="signature"):
        answered(request)


def test_a_request_with_its_two_keys_swapped_is_refused() -> None:
    request = begin().request
    request.ephemeral_key, request.ratchet_key = request.ratchet_key, request.ephemeral_key
    with pytest.raises(HandshakeRefusedError, match="signature"):
        answered(request)


def in_bundle(
    change: Callable[[wire.PrekeyBundle], object],
) -> Callable[[wire.EstablishResponse], object]:
    return lambda response: change(response.bundle)


RESPONSE_CHANGES: dict[str, Callable[[wire.EstablishResponse], object]] = {
    **{name: in_bundle(change) for name, change in BUNDLE_CHANGES.items()},
    "connect id": lambda r: setattr(r, "connect_id", r.connect_id ^ 1),
    "other prekey": lambda r: setattr(r, "one_time_prekey_id", 2),
    "unknown prekey": lambda r: setattr(r, "one_time_prekey_id", 3),
    "no prekey": lambda r: r.ClearField("one_time_prekey_id"),
    "expiry": lambda r: setattr(r, "expires_at_unix_micros", r.expires_at_unix_micros + 1),
    "expiry before 1970": lambda r: setattr(r, "expires_at_unix_micros", -1),
    "rotation": lambda r: setattr(r, "dh_ratchet_every", r.dh_ratchet_every + 1),
    "no rotation": lambda r: setattr(r, "dh_ratchet_every", 0),
    "empty": lambda r: r.Clear(),
}


@pytest.mark.parametrize("change", RESPONSE_CHANGES.values(), ids=RESPONSE_CHANGES)
@pytest.mark.parametrize("pin", [None, SERVICE.public_key], ids=["unpinned", "pinned"])
def test_a_response_changed_in_any_field_is_refused_and_the_right_one_still_completes(
    change: Callable[[wire.EstablishResponse], object], pin: bytes | None
) -> None:
    initiation = begin()
    service = answered(initiation.request)
    before = copy.deepcopy(initiation._keys)
    response = response_of(service)
    change(response)
    with pytest.raises(HandshakeRefusedError):
        initiation.complete(response, pinned_identity=pin)
    assert initiation._keys == before
    peer = initiation.complete(response_of(service), pinned_identity=pin)
    Ends(peer, service, seeded(3)).round_trip()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("one_time_prekey_id", 3, "no one-time prekey 3"),
        ("dh_ratchet_every", 0, "dh_ratchet_every"),
        ("connect_id", 1, "another channel"),
    ],
)
def test_a_response_that_makes_no_sense_is_refused_though_rightly_signed(
    name: str, value: int, said: str
) -> None:
    initiation = begin()
    response = response_of(answered(initiation.request))
    setattr(response, name, value)
    sign_again(initiation.request, response)
    with pytest.raises(HandshakeRefusedError, match=said):
        initiation.complete(response)


def test_a_response_to_another_request_is_refused() -> None:
    initiation, other = begin(1), begin(2)
    with pytest.raises(HandshakeRefusedError, match="signature"):
        initiation.complete(response_of(answered(other.request)))


def test_a_responders_bundle_is_no_initiators_nor_the_other_way_round() -> None:
    # Both ends may have the same identity; the context tells the roles apart.
    initiation = begin()
    response = response_of(answered(initiation.request, identity=PEER))
    request = wire.EstablishRequest(
        bundle=response.bundle,
        ephemeral_key=initiation.request.ephemeral_key,
        ratchet_key=initiation.request.ratchet_key,
    )
    with pytest.raises(HandshakeRefusedError, match="signature"):
        answered(request)
    response.bundle.CopyFrom(initiation.request.bundle)
    with pytest.raises(HandshakeRefusedError, match="signature"):
        initiation.complete(response)


def test_only_the_pinned_identity_is_believed() -> None:
    initiation = begin()
    stranger = answered(initiation.request, identity=Identity.generate(seeded(9)))
    with pytest.raises(HandshakeRefusedError, match="pinned"):
        initiation.complete(response_of(stranger), pinned_identity=SERVICE.public_key)
    service = answered(initiation.request)
    initiation.complete(response_of(service), pinned_identity=SERVICE.public_key)


# --- Keys that must be refused, rightly signed ------------------------------------------------


@pytest.mark.parametrize("key", BAD_EXCHANGE_KEYS, ids=bytes.hex)
@pytest.mark.parametrize(
    "place", ["exchange_identity_key", "signed_prekey", "one_time_prekeys", "ephemeral", "ratchet"]
)
def test_a_request_with_a_weak_or_malformed_key_is_refused(place: str, key: bytes) -> None:
    request = begin().request
    if place == "ephemeral":
        request.ephemeral_key = key
    elif place == "ratchet":
        request.ratchet_key = key
    elif place == "one_time_prekeys":
        request.bundle.one_time_prekeys[1].public_key = key
    else:
        setattr(request.bundle, place, key)
    request.bundle.signature = initiator_signature(bundle_from_wire(request.bundle), request)
    with pytest.raises(HandshakeRefusedError, match=place):
        answered(request)


@pytest.mark.parametrize("key", BAD_EXCHANGE_KEYS, ids=bytes.hex)
@pytest.mark.parametrize("place", ["exchange_identity_key", "signed_prekey", "one_time_prekeys"])
def test_a_response_with_a_weak_or_malformed_key_is_refused(place: str, key: bytes) -> None:
    initiation = begin()
    response = response_of(answered(initiation.request))
    if place == "one_time_prekeys":
        response.bundle.one_time_prekeys[1].public_key = key
    else:
        setattr(response.bundle, place, key)
    sign_again(initiation.request, response)
    with pytest.raises(HandshakeRefusedError, match=place):
        initiation.complete(response)


@pytest.mark.parametrize("key", BAD_IDENTITY_KEYS, ids=bytes.hex)
def test_a_weak_or_malformed_identity_is_refused(key: bytes) -> None:
    request = begin().request
    request.bundle.identity_key = key
    # Fits any message under the neutral point, the worst of them.
    request.bundle.signature = bytes.fromhex("58" + "66" * 31) + (1).to_bytes(32, "little")
    with pytest.raises(HandshakeRefusedError, match="identity_key"):
        answered(request)


def test_x3dh_itself_refuses_a_weak_key_in_every_place() -> None:
    pair, good = KeyPair(seeded(1)(32)), KeyPair(seeded(2)(32)).public_key
    weak = WEAK_EXCHANGE_KEYS[0]
    for position in range(3):
        keys = [good, good, good]
        keys[position] = weak
        with pytest.raises(primitives.WeakKeyError):
            x3dh.agree_as_initiator(pair, pair, *keys)
    for position in range(2):
        keys = [good, good]
        keys[position] = weak
        with pytest.raises(primitives.WeakKeyError):
            x3dh.agree_as_responder(pair, pair, pair, *keys)


def signed_request(prekeys: list[tuple[int, bytes]]) -> wire.EstablishRequest:
    request = begin().request
    del request.bundle.one_time_prekeys[:]
    for prekey_id, key in prekeys:
        request.bundle.one_time_prekeys.add(id=prekey_id, public_key=key)
    request.bundle.signature = initiator_signature(bundle_from_wire(request.bundle), request)
    return request


def test_prekeys_of_one_id_are_refused() -> None:
    key = KeyPair(seeded(1)(32)).public_key
    answered(signed_request([(1, key), (2, key)]))
    with pytest.raises(HandshakeRefusedError, match="repeat an id"):
        answered(signed_request([(1, key), (1, key)]))


def test_a_bundle_holds_at_most_so_many_prekeys() -> None:
    key = KeyPair(seeded(1)(32)).public_key
    full = [(prekey_id, key) for prekey_id in range(MAX_ONE_TIME_PREKEYS)]
    answered(signed_request(full))
    with pytest.raises(HandshakeRefusedError, match="201"):
        answered(signed_request([*full, (MAX_ONE_TIME_PREKEYS, key)]))


def test_prekey_ids_use_all_of_their_32_bits() -> None:
    key = KeyPair(seeded(1)(32)).public_key
    answered(signed_request([(0, key), (2**32 - 1, key)]))


# --- One use of everything --------------------------------------------------------------------


def test_the_one_time_prekey_of_the_agreement_is_gone_and_the_others_are_kept() -> None:
    session = answered(begin().request)
    assert response_of(session).one_time_prekey_id == 1
    assert list(session.channel_keys.one_time_prekeys) == [2]
    assert list(Session.decode(session.encode()).channel_keys.one_time_prekeys) == [2]


def test_a_one_time_prekey_is_consumed_at_most_once() -> None:
    keys = ChannelKeys.generate(SERVICE, partial(KeyPair.generate, seeded(1)), 2)
    pair = keys.one_time_prekeys[2]
    assert keys.consume_one_time_prekey(2) is pair
    for prekey_id in (2, 3):
        with pytest.raises(HandshakeRefusedError, match=f"{prekey_id} does not exist"):
            keys.consume_one_time_prekey(prekey_id)
    assert list(keys.one_time_prekeys) == [1]


def test_an_initiation_completes_once_and_forgets_its_keys() -> None:
    # A second session from it would encrypt other messages with the same message keys.
    initiation = begin()
    response = response_of(answered(initiation.request))
    initiation.complete(response)
    assert initiation._keys is None
    with pytest.raises(ChannelExistsError, match="begin another"):
        initiation.complete(response)


def test_a_request_replayed_makes_a_channel_that_opens_nothing_of_the_first() -> None:
    initiation = begin()
    service = answered(initiation.request, seed=2)
    ends = Ends(initiation.complete(response_of(service)), service, seeded(3))
    recorded = ends.up(b"secret")
    replayed = answered(initiation.request, seed=4)
    assert replayed.ratchet.root_key != service.ratchet.root_key
    with pytest.raises(AuthenticationFailedError):
        replayed.decrypt(recorded, now=NOW)
    assert ends.at_service(recorded) == b"secret"


def test_a_refused_request_draws_no_randomness_and_leaves_the_request_as_it_was() -> None:
    drawn: list[int] = []

    def random(size: int) -> bytes:
        drawn.append(size)
        return bytes(size)

    request = begin().request
    request.bundle.signature = bytes(64)
    before = request.SerializeToString(deterministic=True)
    with pytest.raises(HandshakeRefusedError):
        respond(request, identity=SERVICE, limits=ChannelLimits(), now=NOW, random=random)
    assert drawn == []
    assert request.SerializeToString(deterministic=True) == before


def test_fields_that_no_signature_covers_are_not_kept() -> None:
    request = begin().request
    padded = wire.EstablishRequest()
    for unknown in (b"\xfa\x07\x05stray", b"\x0a\x08\xfa\x07\x05stray"):  # top level, and in bundle
        padded.ParseFromString(request.SerializeToString() + unknown)
        assert padded.ByteSize() > request.ByteSize()
        before = padded.SerializeToString()
        assert encode_request(padded) == encode_request(request)
        assert answered(padded).handshake.request == encode_request(request)
        assert padded.SerializeToString() == before


# --- Identities are bound into every message --------------------------------------------------


def ends_bound_to(peer_identity: bytes, service_identity: bytes) -> tuple[bytes, bytes]:
    """Return the associated data at both ends, if each believed in the given identities."""
    initiation = begin()
    service = answered(initiation.request)
    peer = initiation.complete(response_of(service))
    assert peer.ratchet.associated_data == service.ratchet.associated_data
    response = response_of(service)
    return service.ratchet.associated_data, primitives.digest(
        parts(
            b"connect-actor channel v1",
            response.connect_id.to_bytes(8, "big"),
            peer_identity,
            initiation.request.bundle.exchange_identity_key,
            service_identity,
            response.bundle.exchange_identity_key,
        )
    )


def test_the_associated_data_holds_the_id_and_all_four_identities() -> None:
    bound, expected = ends_bound_to(PEER.public_key, SERVICE.public_key)
    assert bound == expected


@pytest.mark.parametrize("which", ["peer", "service"])
def test_another_identity_makes_another_associated_data(which: str) -> None:
    other = Identity.generate(seeded(5)).public_key
    bound, wrong = ends_bound_to(
        other if which == "peer" else PEER.public_key,
        other if which == "service" else SERVICE.public_key,
    )
    assert bound != wrong


def test_ends_that_believe_in_different_identities_do_not_understand_each_other() -> None:
    # Misbinding: all keys agree, but one end thinks that it talks with somebody else.
    ends = make_ends()
    ends.service.ratchet.associated_data = primitives.digest(b"the same keys, another identity")
    payload = ends.up()
    before = copy.deepcopy(ends.service)
    with pytest.raises(AuthenticationFailedError):
        ends.at_service(payload)
    assert ends.service == before


# --- Limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dh_ratchet_every", 0),
        ("dh_ratchet_every", 2**32),
        ("max_skip", -1),
        ("max_skip", 2**32),
        ("max_skipped_keys", -1),
        ("max_skipped_keys", 2**32),
        ("lifetime", -1),
        ("lifetime", float("nan")),
        ("lifetime", float("inf")),
        ("one_time_prekeys", -1),
        ("one_time_prekeys", MAX_ONE_TIME_PREKEYS + 1),
    ],
)
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(ChannelLimits(), **{name: value})  # type: ignore[arg-type] # on purpose


def test_the_largest_limits_can_be_stored_and_sent() -> None:
    limits = ChannelLimits(
        dh_ratchet_every=2**32 - 1,
        max_skip=2**32 - 1,
        max_skipped_keys=2**32 - 1,
        lifetime=100 * 365 * 86_400,
        one_time_prekeys=MAX_ONE_TIME_PREKEYS,
    )
    ends = make_ends(1, limits)
    ends.round_trip()
    assert Session.decode(ends.service.encode()) == ends.service
