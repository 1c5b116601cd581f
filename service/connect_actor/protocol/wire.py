"""Protocol values as messages of the public interface, and back."""

from connect_actor.errors import HandshakeRefusedError
from connect_actor.protocol.keys import PrekeyBundle
from connect_actor.protocol.limits import MAX_ONE_TIME_PREKEYS
from connect_actor.protocol.payload import Header, Payload
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["bundle_from_wire", "bundle_to_wire", "payload_from_wire", "payload_to_wire"]


def payload_to_wire(payload: Payload, message: wire.CipherPayload) -> None:
    """Write a payload into its wire message."""
    header, message.nonce, message.ciphertext = payload
    (
        message.dh_public_key,
        message.previous_chain_length,
        message.ratchet_index,
        message.request_id,
        message.created_at_unix_micros,
    ) = header


def payload_from_wire(message: wire.CipherPayload) -> Payload:
    """Return the payload of a wire message; sizes are checked by whoever decrypts it."""
    return Payload(
        Header(
            message.dh_public_key,
            message.previous_chain_length,
            message.ratchet_index,
            message.request_id,
            message.created_at_unix_micros,
        ),
        message.nonce,
        message.ciphertext,
    )


def bundle_from_wire(bundle: wire.PrekeyBundle) -> PrekeyBundle:
    """Return the bundle of a wire message; nothing of it has been checked but how much it is.

    A prekey takes two bytes on the wire and a hundred times that here, so they are counted first.

    Raises:
        HandshakeRefusedError: it holds more one-time prekeys than are ever accepted.
    """
    if len(bundle.one_time_prekeys) > MAX_ONE_TIME_PREKEYS:
        raise HandshakeRefusedError(
            f"the bundle holds {len(bundle.one_time_prekeys)} one-time prekeys,"
            f" at most {MAX_ONE_TIME_PREKEYS} are accepted"
        )
    return PrekeyBundle(
        identity_key=bundle.identity_key,
        exchange_identity_key=bundle.exchange_identity_key,
        signed_prekey_id=bundle.signed_prekey_id,
        signed_prekey=bundle.signed_prekey,
        one_time_prekeys=tuple(
            (prekey.id, prekey.public_key) for prekey in bundle.one_time_prekeys
        ),
        signature=bundle.signature,
    )


def bundle_to_wire(bundle: PrekeyBundle) -> wire.PrekeyBundle:
    """Return the wire message of a bundle."""
    return wire.PrekeyBundle(
        identity_key=bundle.identity_key,
        exchange_identity_key=bundle.exchange_identity_key,
        signed_prekey_id=bundle.signed_prekey_id,
        signed_prekey=bundle.signed_prekey,
        one_time_prekeys=[
            wire.OneTimePrekey(id=prekey_id, public_key=key)
            for prekey_id, key in bundle.one_time_prekeys
        ],
        signature=bundle.signature,
    )
