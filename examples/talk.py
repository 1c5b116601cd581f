"""Both ends of a channel: a peer and the service's application talk, one by one and in a batch.

connect-actor serve &
python examples/talk.py 127.0.0.1:50051
"""

import asyncio
import os
import sys

from connect_actor.client import ConnectClient, Identity, require_success
from connect_actor.errors import MessageReplayedError
from connect_actor.v1 import connect_pb2 as wire


async def talk(target: str, pinned_identity: bytes | None = None) -> None:
    """Establish a channel, use it in every way, close it.

    Args:
        target: host:port of the service.
        pinned_identity: its identity key, which it prints when it starts. Without it, whoever
            answers is believed.
    """
    identity = Identity.generate(os.urandom)  # long-lived: keep it, it is what others pin
    async with ConnectClient(target, pinned_identity=pinned_identity) as client:
        channel = await client.establish(identity)
        print("established", channel)

        # The service's end encrypts, the peer's end opens.
        payload = await channel.encrypt(b"to the peer")
        print("the peer reads:", channel.open(payload).decode())

        # The peer's end seals, the service's end decrypts. Order of arrival is of no matter.
        first, second = channel.seal(b"to the service, 1"), channel.seal(b"to the service, 2")
        print("the service reads:", (await channel.decrypt(second)).decode())
        print("the service reads:", (await channel.decrypt(first)).decode())

        # An answer that got lost could be had again until now; from here on a message opens once.
        await channel.acknowledge()
        try:
            await channel.decrypt(first)
        except MessageReplayedError as refusal:
            print("refused:", refusal)

        # Throughput comes from the stream: many operations in a frame, many frames under way.
        async with client.exchange() as stream:
            operations = [
                wire.Operation(
                    encrypt=wire.EncryptRequest(
                        connect_id=channel.connect_id, plaintext=f"message {number}".encode()
                    )
                )
                for number in range(64)
            ]
            results = [require_success(result) for result in await stream.call(operations)]
        texts = [channel.open(result.encrypt.payload).decode() for result in results]
        print("the peer reads:", texts[0], "...", texts[-1])

        restored = await channel.restore()
        print("messages on the service's sending chain:", restored.sending_chain_length)
        await channel.close()
        print("closed")


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1]))
