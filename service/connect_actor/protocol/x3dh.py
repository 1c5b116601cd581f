"""The X3DH key agreement (Signal's specification, revision 1, section 3.3), both ends.

    DH1 = DH(IK_A, SPK_B)   DH2 = DH(EK_A, IK_B)   DH3 = DH(EK_A, SPK_B)   DH4 = DH(EK_A, OPK_B)
    SK  = HKDF(F || DH1 || DH2 || DH3 [|| DH4]),  F = 32 bytes of 0xFF, salt of 32 zero bytes

A is the initiator, B the responder. Signatures are checked by whoever calls (``PrekeyBundle``).
"""

from connect_actor.protocol import primitives
from connect_actor.protocol.primitives import KeyPair

__all__ = ["agree_as_initiator", "agree_as_responder"]

_INFO = b"connect-actor X3DH v1"
_F = b"\xff" * 32
_SALT = bytes(32)


def _derive(*secrets: bytes) -> bytes:
    return primitives.hkdf(
        _F + b"".join(secrets), salt=_SALT, info=_INFO, length=primitives.KEY_SIZE
    )


def agree_as_initiator(
    own_identity: KeyPair,
    own_ephemeral: KeyPair,
    peer_identity: bytes,
    peer_signed_prekey: bytes,
    peer_one_time_prekey: bytes | None,
) -> bytes:
    """Return SK, 32 bytes, as A.

    Raises:
        WeakKeyError: one of the peer's keys is of small order.
    """
    secrets = [
        own_identity.exchange(peer_signed_prekey),
        own_ephemeral.exchange(peer_identity),
        own_ephemeral.exchange(peer_signed_prekey),
    ]
    if peer_one_time_prekey is not None:
        secrets.append(own_ephemeral.exchange(peer_one_time_prekey))
    return _derive(*secrets)


def agree_as_responder(
    own_identity: KeyPair,
    own_signed_prekey: KeyPair,
    own_one_time_prekey: KeyPair | None,
    peer_identity: bytes,
    peer_ephemeral: bytes,
) -> bytes:
    """Return SK, 32 bytes, as B.

    Raises:
        WeakKeyError: one of the peer's keys is of small order.
    """
    secrets = [
        own_signed_prekey.exchange(peer_identity),
        own_identity.exchange(peer_ephemeral),
        own_signed_prekey.exchange(peer_ephemeral),
    ]
    if own_one_time_prekey is not None:
        secrets.append(own_one_time_prekey.exchange(peer_ephemeral))
    return _derive(*secrets)
