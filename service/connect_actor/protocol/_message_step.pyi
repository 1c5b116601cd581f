from connect_actor.protocol.payload import Header

def seal_message(
    chain_key: bytes, associated_data: bytes, header: Header, nonce: bytes, plaintext: bytes, /
) -> tuple[bytes, bytes, bytes]: ...
def open_message(
    chain_key: bytes, associated_data: bytes, header: Header, nonce: bytes, ciphertext: bytes, /
) -> tuple[bytes, bytes, bytes] | None: ...
