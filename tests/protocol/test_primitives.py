"""The primitives against their specifications' own vectors."""

import hmac

import pytest

from connect_actor.protocol import primitives
from connect_actor.protocol.primitives import KeyPair, WeakKeyError
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS, WEAK_IDENTITY_KEYS
from tests.support.channels import seeded

h = bytes.fromhex

# RFC 5869, appendix A: key material, salt, info, output.
HKDF = [
    (
        h("0b" * 22),
        h("000102030405060708090a0b0c"),
        h("f0f1f2f3f4f5f6f7f8f9"),
        h("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
    ),
    (
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        h(
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e59"
            "0e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        h("0b" * 22),
        b"",
        b"",
        h("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ),
]


@pytest.mark.parametrize(("material", "salt", "info", "output"), HKDF, ids=["A.1", "A.2", "A.3"])
def test_hkdf_is_rfc_5869s(material: bytes, salt: bytes, info: bytes, output: bytes) -> None:
    assert primitives.hkdf(material, salt=salt, info=info, length=len(output)) == output


# RFC 7748: scalar, coordinate, result (5.2), and the key pairs of 6.1.
X25519 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]


@pytest.mark.parametrize(("scalar", "coordinate", "result"), X25519)
def test_x25519_is_rfc_7748s(scalar: str, coordinate: str, result: str) -> None:
    assert KeyPair(h(scalar)).exchange(h(coordinate)) == h(result)


def test_x25519_agrees_as_in_rfc_7748_section_6_1() -> None:
    alice = KeyPair(h("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair(h("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    shared = h("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert alice.public_key == h("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.public_key == h("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert alice.exchange(bob.public_key) == shared
    assert bob.exchange(alice.public_key) == shared


# RFC 8032, section 7.1: seed, public key, message, signature.
ED25519 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
            "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da0"
            "85ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac1"
            "8ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), ED25519)
def test_ed25519_is_rfc_8032s(seed: str, public: str, message: str, signature: str) -> None:
    signing_key = primitives.SigningKey(h(seed))
    assert signing_key.public_key == h(public)
    assert signing_key.sign(h(message)) == h(signature)
    assert primitives.verify(h(public), h(signature), h(message))
    assert not primitives.verify(h(public), h(signature), h(message) + b"x")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_signature_under_a_key_of_another_size_is_not_good(size: int) -> None:
    assert not primitives.verify(bytes(size), bytes(64), b"")


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_size_is_not_good(size: int) -> None:
    assert not primitives.verify(h(ED25519[0][1]), bytes(size), b"")


def test_a_chain_step_is_two_hmacs_of_the_chain_key() -> None:
    for seed in range(20):
        chain_key = seeded(seed)(32)
        assert primitives.step_chain(chain_key) == (
            hmac.digest(chain_key, b"\x01", "sha256"),
            hmac.digest(chain_key, b"\x02", "sha256"),
        )


@pytest.mark.parametrize("key", WEAK_EXCHANGE_KEYS, ids=bytes.hex)
def test_every_encoding_of_a_point_of_small_order_is_weak(key: bytes) -> None:
    assert primitives.is_weak_public_key(key)
    with pytest.raises(WeakKeyError):
        KeyPair(seeded(1)(32)).exchange(key)


@pytest.mark.parametrize("key", WEAK_IDENTITY_KEYS, ids=bytes.hex)
def test_every_encoding_of_an_identity_of_small_order_is_weak(key: bytes) -> None:
    assert primitives.is_weak_identity_key(key)


def test_a_signature_under_an_identity_of_small_order_is_not_good() -> None:
    # R = s B holds for every message if the key adds nothing: by RFC 8032 alone it would be good.
    base_point = h("58" + "66" * 31)
    neutral = (1).to_bytes(32, "little")
    signature = base_point + (1).to_bytes(32, "little")
    assert not primitives.verify(neutral, signature, b"this")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_never_gets_to_the_library(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would read beyond a shorter one's end.
    for name in ("crypto_scalarmult", "crypto_scalarmult_base", "crypto_sign_open"):
        monkeypatch.setattr(f"nacl.bindings.{name}", pytest.fail)
    with pytest.raises(ValueError, match=f"{size} bytes"):
        _ = KeyPair(bytes(size)).public_key
    with pytest.raises(ValueError, match=f"{size} bytes"):
        KeyPair(bytes(size)).exchange(b"\x09" * 32)
    with pytest.raises(WeakKeyError):
        KeyPair(seeded(1)(32)).exchange(b"\x09" * size)
    with pytest.raises(ValueError, match="seed"):
        primitives.SigningKey(bytes(size))
    assert not primitives.verify(b"\x09" * size, bytes(64), b"")
    assert not primitives.verify(b"\x09" * 32, bytes(size), b"")


def test_a_sound_key_is_not_weak() -> None:
    for seed in range(50):
        private_key = seeded(seed)(32)
        assert not primitives.is_weak_public_key(KeyPair(private_key).public_key)
        assert not primitives.is_weak_identity_key(primitives.SigningKey(private_key).public_key)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_is_weak(size: int) -> None:
    key = b"\x09" * size
    assert primitives.is_weak_public_key(key)
    assert primitives.is_weak_identity_key(key)
    with pytest.raises(WeakKeyError):
        KeyPair(seeded(1)(32)).exchange(key)
