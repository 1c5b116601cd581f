"""Channel keys in their stored form, which is how a session carries them.

Once a channel is established nothing of its key material changes, and no message needs it: it is
kept for what is written and for whoever inspects it. So a session holds it as the bytes that go
into every whole state: less memory than a channel's worth of objects, and nothing to take apart
and put together again with each recovery and each state.
"""

from connect_actor.protocol.keys import ChannelKeys
from connect_actor.protocol.primitives import KeyPair
from connect_actor.stored.v1 import session_pb2 as stored

__all__ = ["channel_keys_to_stored", "decode_channel_keys"]


def channel_keys_to_stored(keys: ChannelKeys) -> stored.ChannelKeys:
    """Return the stored form of keys whose handshake is done: without the halves that it used."""
    return stored.ChannelKeys(
        identity_key=keys.identity_key,
        exchange_identity_key=keys.exchange_identity.public_key,
        signed_prekey_id=keys.signed_prekey_id,
        signed_prekey=keys.signed_prekey.public_key,
        signature=keys.signature,
        one_time_prekeys=[
            stored.OneTimePrekeyPair(
                id=prekey_id, private_key=pair.private_key, public_key=pair.public_key
            )
            for prekey_id, pair in keys.one_time_prekeys.items()
        ],
    )


def decode_channel_keys(encoded: bytes) -> ChannelKeys:
    """Return the keys that ``channel_keys_to_stored`` made, serialised."""
    keys = stored.ChannelKeys.FromString(encoded)
    return ChannelKeys(
        identity_key=keys.identity_key,
        exchange_identity=KeyPair(b"", keys.exchange_identity_key),
        signed_prekey_id=keys.signed_prekey_id,
        signed_prekey=KeyPair(b"", keys.signed_prekey),
        one_time_prekeys={
            pair.id: KeyPair(pair.private_key, pair.public_key) for pair in keys.one_time_prekeys
        },
        signature=keys.signature,
    )
