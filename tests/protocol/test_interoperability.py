"""Our protocol against two independent implementations; see ``independent`` for their set-up."""

import random
from collections.abc import Awaitable, Callable

import pytest
import x3dh as independent_x3dh
import xeddsa
from doubleratchet import AuthenticationFailedException, DuplicateMessageException
from x3dh import HashFunction, IdentityKeyFormat
from x3dh.identity_key_pair import IdentityKeyPairPriv
from x3dh.models import BaseStateModel, IdentityKeyPairModel, SignedPreKeyPairModel
from x3dh.types import SecretType

from connect_actor.errors import AuthenticationFailedError, MessageReplayedError
from connect_actor.protocol import x3dh
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from tests.protocol.independent import IndependentRatchet, X3DHState
from tests.support.channels import NOW, begin_and_answer, response_of, seeded

CLASSIC = ChannelLimits(dh_ratchet_every=1)
MODES = ["theirs is Alice", "theirs is Bob"]


def recorded_agreements(patch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that receives every SK from now on."""
    agreed: list[bytes] = []
    derive = x3dh._derive

    def recorded(*secrets: bytes) -> bytes:
        agreed.append(derive(*secrets))
        return agreed[-1]

    patch.setattr(x3dh, "_derive", recorded)
    return agreed


class Recorded:
    """A source that remembers what was drawn: sessions erase the private halves they have used."""

    def __init__(self, seed: int) -> None:
        self._source = seeded(seed)
        self.drawn: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self.drawn.append(self._source(size))
        return self.drawn[-1]

    def pair_of(self, public_key: bytes) -> KeyPair:
        """Return the whole of a key pair that was drawn here."""
        pairs = (KeyPair(secret) for secret in self.drawn if len(secret) == 32)
        return next(pair for pair in pairs if pair.public_key == public_key)


class Pair:
    """A channel with our session at one end and `DoubleRatchet` at the other, after a handshake.

    The handshake is ours at both ends; then one end's session is taken away, and theirs gets what
    it had agreed on.
    """

    def __init__(self, mode: str, seed: int = 1) -> None:
        source = Recorded(seed)
        with pytest.MonkeyPatch.context() as patch:
            agreed = recorded_agreements(patch)
            # The keys are forgotten once the handshake is complete.
            initiation, bob = begin_and_answer(source, CLASSIC)
            keys = initiation._keys
            assert keys is not None
            alice = initiation.complete(response_of(bob))
        assert agreed[0] == agreed[1]
        self.source = source
        self.theirs = IndependentRatchet(agreed[0], bob.ratchet.associated_data, source)
        self.ours: Session
        if mode == "theirs is Alice":
            self.ours = bob
            self.theirs.begin_as_alice(
                keys.ratchet.private_key, bob.channel_keys.signed_prekey.public_key
            )
        else:
            self.ours = alice
            self.theirs.begin_as_bob(
                source.pair_of(bob.channel_keys.signed_prekey.public_key).private_key
            )
        self.their_turn_first = mode == "theirs is Alice"

    async def we_say(self, plaintext: bytes) -> Payload:
        return self.ours.encrypt(plaintext, now=NOW, random=self.source, request_id=7)[0]

    async def they_say(self, plaintext: bytes) -> Payload:
        return await self.theirs.encrypt(plaintext, 2**64 - 1, NOW + 1)

    async def we_hear(self, payload: Payload) -> bytes:
        return self.ours.decrypt(payload, now=NOW)[0]

    async def they_hear(self, payload: Payload) -> bytes:
        return await self.theirs.decrypt(payload)

    async def open(self) -> None:
        """Carry Alice's first message to Bob, which theirs needs before anything else."""
        if self.their_turn_first:
            assert await self.we_hear(await self.they_say(b"hello")) == b"hello"
        else:
            assert await self.they_hear(await self.we_say(b"hello")) == b"hello"


@pytest.mark.parametrize("mode", MODES)
async def test_a_conversation_both_ways_through_many_rotations(mode: str) -> None:
    pair = Pair(mode)
    await pair.open()
    keys = set()
    for number in range(40):
        down = await pair.we_say(b"ours %d" % number)
        assert await pair.they_hear(down) == b"ours %d" % number
        up = await pair.they_say(b"theirs %d" % number)
        assert await pair.we_hear(up) == b"theirs %d" % number
        keys |= {down.header.ratchet_key, up.header.ratchet_key}
    assert len(keys) >= 79


@pytest.mark.parametrize("mode", MODES)
async def test_long_runs_of_one_end(mode: str) -> None:
    pair = Pair(mode)
    await pair.open()
    for run in (5, 1, 17):
        for number in range(run):
            assert await pair.they_hear(await pair.we_say(b"%d" % number)) == b"%d" % number
        for number in range(run):
            assert await pair.we_hear(await pair.they_say(b"%d" % number)) == b"%d" % number


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", MODES)
async def test_out_of_order_with_losses_and_crossing_rotations(mode: str, seed: int) -> None:
    pair = Pair(mode, seed)
    await pair.open()
    dice = random.Random(seed)
    # For each direction: how to say, how to hear, and what is on its way.
    ways: list[
        tuple[
            Callable[[bytes], Awaitable[Payload]],
            Callable[[Payload], Awaitable[bytes]],
            list[tuple[bytes, int, Payload]],
        ]
    ] = [(pair.we_say, pair.they_hear, []), (pair.they_say, pair.we_hear, [])]
    heard = chains = 0
    keys: set[bytes] = set()
    for number in range(150):
        say, hear, flying = dice.choice(ways)
        plaintext = b"%d" % number
        payload = await say(plaintext)
        if payload.header.ratchet_key not in keys:
            keys.add(payload.header.ratchet_key)
            chains += 1
        flying.append((plaintext, chains, payload))
        if dice.random() < 0.15:
            flying.pop(dice.randrange(len(flying)))
        # Ours keeps the skipped keys of five chains only, theirs of all.
        flying[:] = [entry for entry in flying if entry[1] > chains - 6]
        while flying and dice.random() < 0.5:
            expected, _, late = flying.pop(dice.randrange(len(flying)))
            assert await hear(late) == expected
            heard += 1
    assert heard > 60
    assert chains > 15


@pytest.mark.parametrize("mode", MODES)
async def test_skipped_messages_come_late_and_once(mode: str) -> None:
    pair = Pair(mode)
    await pair.open()
    ours = [await pair.we_say(b"%d" % number) for number in range(5)]
    theirs = [await pair.they_say(b"%d" % number) for number in range(5)]
    for number in (4, 0, 2):
        assert await pair.they_hear(ours[number]) == b"%d" % number
        assert await pair.we_hear(theirs[number]) == b"%d" % number
    # Now both turn, and what was left behind comes on chains that have ended.
    assert await pair.they_hear(await pair.we_say(b"turn")) == b"turn"
    assert await pair.we_hear(await pair.they_say(b"turn")) == b"turn"
    for number in (3, 1):
        assert await pair.they_hear(ours[number]) == b"%d" % number
        assert await pair.we_hear(theirs[number]) == b"%d" % number
    for number in range(5):
        with pytest.raises((DuplicateMessageException, AuthenticationFailedException)):
            await pair.they_hear(ours[number])
        with pytest.raises((MessageReplayedError, AuthenticationFailedError)):
            await pair.we_hear(theirs[number])


async def test_our_bob_may_speak_before_he_has_heard() -> None:
    pair = Pair("theirs is Alice")
    first = await pair.they_say(b"from Alice")
    assert await pair.they_hear(await pair.we_say(b"from Bob")) == b"from Bob"
    assert await pair.we_hear(first) == b"from Alice"
    assert await pair.we_hear(await pair.they_say(b"again")) == b"again"


def zeroed(payload: Payload, part: str) -> Payload:
    if part == "nonce":
        return payload._replace(nonce=bytes(len(payload.nonce)))
    return payload._replace(ciphertext=bytes(len(payload.ciphertext)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["nonce", "ciphertext"])
async def test_each_refuses_what_was_forged_of_the_others(mode: str, part: str) -> None:
    pair = Pair(mode)
    await pair.open()
    ours, theirs = await pair.we_say(b"x"), await pair.they_say(b"y")
    forged = zeroed(ours, part)
    with pytest.raises(AuthenticationFailedException):
        await pair.they_hear(forged)
    forged = zeroed(theirs, part)
    with pytest.raises(AuthenticationFailedError):
        await pair.we_hear(forged)
    assert await pair.they_hear(ours) == b"x"
    assert await pair.we_hear(theirs) == b"y"


# --- X3DH -------------------------------------------------------------------------------------


def their_state(identity: KeyPair, signed_prekey: KeyPair, prekeys: list[KeyPair]) -> X3DHState:
    """Return their state with given keys, its signature made by their library."""
    # XEdDSA: the one of the two private keys whose Ed25519 public key has the sign bit clear.
    signing_key = xeddsa.priv_force_sign(identity.private_key, set_sign_bit=False)
    signature = xeddsa.ed25519_priv_sign(signing_key, signed_prekey.public_key)
    model = BaseStateModel(
        identity_key=IdentityKeyPairModel(secret=identity.private_key, secret_type=SecretType.PRIV),
        signed_pre_key=SignedPreKeyPairModel(
            priv=signed_prekey.private_key, sig=signature, timestamp=0
        ),
        old_signed_pre_key=None,
        pre_keys=frozenset(pair.private_key for pair in prekeys),
    )
    return X3DHState.from_model(
        model, IdentityKeyFormat.CURVE_25519, HashFunction.SHA_256, b"connect-actor X3DH v1"
    )


@pytest.mark.parametrize("prekey", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_our_initiator_agrees_with_their_responder(seed: int, *, prekey: bool) -> None:
    source = seeded(seed)
    a_identity, a_ephemeral, identity, signed, one_time = (
        KeyPair.generate(source) for _ in range(5)
    )
    state = their_state(identity, signed, [one_time])
    theirs, _, _ = await state.get_shared_secret_passive(
        independent_x3dh.Header(
            a_identity.public_key,
            a_ephemeral.public_key,
            signed.public_key,
            one_time.public_key if prekey else None,
        ),
        require_pre_key=False,
    )
    ours = x3dh.agree_as_initiator(
        a_identity,
        a_ephemeral,
        identity.public_key,
        signed.public_key,
        one_time.public_key if prekey else None,
    )
    assert ours == theirs


@pytest.mark.parametrize("prekey", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_their_initiator_agrees_with_our_responder(seed: int, *, prekey: bool) -> None:
    source = seeded(seed)
    a_identity, identity, signed, one_time = (KeyPair.generate(source) for _ in range(4))
    alice = X3DHState.create(
        IdentityKeyFormat.CURVE_25519,
        HashFunction.SHA_256,
        b"connect-actor X3DH v1",
        IdentityKeyPairPriv(a_identity.private_key),
    )
    bundle = their_state(identity, signed, [one_time] if prekey else []).bundle
    theirs, _, header = await alice.get_shared_secret_active(bundle, require_pre_key=False)
    assert header.identity_key == a_identity.public_key
    ours = x3dh.agree_as_responder(
        identity,
        signed,
        one_time if prekey else None,
        header.identity_key,
        header.ephemeral_key,
    )
    assert ours == theirs


@pytest.mark.parametrize("prekeys", [0, 10])
async def test_a_whole_handshake_agrees_on_what_their_responder_computes(
    prekeys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed = recorded_agreements(monkeypatch)
    source = Recorded(1)
    initiation, bob = begin_and_answer(source, ChannelLimits(one_time_prekeys=prekeys))
    response = response_of(bob)
    initiation.complete(response)
    consumed = None
    if prekeys:
        public = {prekey.id: prekey.public_key for prekey in response.bundle.one_time_prekeys}
        consumed = source.pair_of(public[response.one_time_prekey_id])
    bundle = response.bundle
    state = their_state(
        source.pair_of(bundle.exchange_identity_key),
        source.pair_of(bundle.signed_prekey),
        [consumed] if consumed else [],
    )
    theirs, _, _ = await state.get_shared_secret_passive(
        independent_x3dh.Header(
            initiation.request.bundle.exchange_identity_key,
            initiation.request.ephemeral_key,
            response.bundle.signed_prekey,
            consumed.public_key if consumed else None,
        ),
        require_pre_key=False,
    )
    assert agreed == [theirs, theirs]
