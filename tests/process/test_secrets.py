"""A whole mixed session at the most talkative level: nothing that it puts out holds a secret."""

import asyncio
import base64
import importlib
import inspect
import json
import os
import pkgutil
import signal
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

import connect_actor
from connect_actor.client import Channel, Identity
from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import load_identity
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.protocol import primitives
from connect_actor.v1 import connect_pb2 as wire
from tests.process.test_process import client_of
from tests.protocol.test_secrecy import secrets_of
from tests.support.process import RunningService, Start, scrape
from tests.support.secret_files import write_secret

_MASTER_KEY = bytes(range(100, 132))
_PLAINTEXTS = [b"plaintext of the peer %d" % number for number in range(30)]
_DEFECT = b"plaintext that meets a defect"

# Loaded by the interpreter itself at its start: a service that fails in the midst of its secrets.
_SABOTAGE = f"""
from connect_actor.protocol.ratchet import Ratchet
whole = Ratchet.encrypt

def encrypt(self, plaintext, **rest):
    payload = whole(self, plaintext, **rest)
    if plaintext == {_DEFECT!r}:
        message_key, root_key = self.sending.chain_key, self.root_key
        raise RuntimeError("a defect")
    return payload

Ratchet.encrypt = encrypt
"""


def spellings(secret: bytes) -> Iterator[bytes]:
    """Return how a secret might show; of keys, a part is enough."""
    for part in {secret, secret[:10], secret[-10:]}:
        yield part
        yield part.hex().encode()
        yield part.hex().upper().encode()
        yield repr(part)[2:-1].encode()
        # JSON escapes what repr has escaped once more.
        yield json.dumps(repr(part))[3:-2].encode()
        yield ", ".join(map(str, part)).encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")


def found_in(text: bytes, secrets: set[bytes]) -> list[bytes]:
    return [secret for secret in secrets if any(spelling in text for spelling in spellings(secret))]


class _Witness:
    """Collects every secret of a session, and every text that its service puts out."""

    def __init__(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secrets = {_MASTER_KEY, _DEFECT, *_PLAINTEXTS}
        self.texts: list[bytes] = []
        self._data = data
        for name in ("step_chain", "step_root", "hkdf"):
            self._listen(name, monkeypatch)

    def _listen(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The two ends' chains are the same, so that the peer's are the service's, too."""
        derive = getattr(primitives, name)

        def derived(*arguments: bytes, **rest: bytes) -> object:
            keys = derive(*arguments, **rest)
            self.secrets.update([keys] if isinstance(keys, bytes) else keys)
            return keys

        monkeypatch.setattr(primitives, name, derived)

    def peer(self, channel: Channel) -> None:
        self.secrets |= secrets_of(channel.session)

    async def refused(self, call: "grpc.aio.UnaryUnaryCall[Any, Any]") -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        self.texts += [str(error.value).encode(), repr(error.value.trailing_metadata()).encode()]

    def ended(self, service: RunningService, channels: list[Channel]) -> None:
        """Take what the process has put out, and what its journal holds."""
        assert service.process.stdout is not None
        self.texts += [service.log.encode(), service.process.stdout.read()]
        self.texts.append(json.dumps(service.ready).encode())
        journal = SqliteJournal(
            self._data / "journal.db", keys=KeyRing.of(_MASTER_KEY), strategy="differential"
        )
        for channel in channels:
            session = rebuild(journal.recover(channel.connect_id))
            if session is not None:
                self.secrets |= secrets_of(session)
        journal.close()
        identity = load_identity(
            self._data / "identity.sealed", KeyRing.of(_MASTER_KEY), os.urandom
        )
        self.secrets.add(identity.private_key)


async def _talk(witness: _Witness, service: RunningService, channels: list[Channel]) -> None:
    async with client_of(service) as client:
        stub = client.stub
        channel = await client.establish(Identity.generate(os.urandom))
        channels.append(channel)
        witness.peer(channel)
        connect_id = channel.connect_id
        for number, plaintext in enumerate(_PLAINTEXTS[:20]):
            sealed = channel.seal(plaintext)
            if number % 5 != 4:  # the others are skipped
                assert await channel.decrypt(sealed) == plaintext
            assert channel.open(await channel.encrypt(_PLAINTEXTS[number])) == plaintext
            witness.peer(channel)
        await channel.restore()
        forged = channel.seal(_PLAINTEXTS[20])
        forged.ciphertext = bytes(len(forged.ciphertext))
        replayed = channel.seal(_PLAINTEXTS[21])
        # Answered again from the delivery window, which is closed then.
        for _ in range(2):
            response = await stub.Decrypt(
                wire.DecryptRequest(connect_id=connect_id, payload=replayed)
            )
        await stub.Acknowledge(
            wire.AcknowledgeRequest(
                connect_id=connect_id, up_to_delivery_number=response.delivery_number
            )
        )
        for payload in (forged, replayed, wire.CipherPayload(nonce=_PLAINTEXTS[22])):
            await witness.refused(
                stub.Decrypt(wire.DecryptRequest(connect_id=connect_id, payload=payload))
            )
        for plaintext in (_DEFECT, _PLAINTEXTS[23]):  # the second meets the back-off
            await witness.refused(
                stub.Encrypt(wire.EncryptRequest(connect_id=connect_id, plaintext=plaintext))
            )
        await witness.refused(
            stub.Encrypt(wire.EncryptRequest(connect_id=1, plaintext=_PLAINTEXTS[24]))
        )
        await witness.refused(stub.Establish(wire.EstablishRequest(ephemeral_key=_PLAINTEXTS[25])))
        other = await client.establish(Identity.generate(os.urandom))
        witness.peer(other)
        await other.decrypt(other.seal(_PLAINTEXTS[26]))
        await other.close()
        told = await asyncio.to_thread(scrape, service.ready["metrics"])
        witness.texts.append(told.encode())


async def test_a_mixed_session_tells_no_secret_whatever_happens(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(_SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'sabotage'}:{Path.cwd()}")
    key_file = write_secret(tmp_path / "master.key", _MASTER_KEY.hex())
    witness = _Witness(tmp_path / "data", monkeypatch)
    flags = (
        "--log-level=debug",
        f"--sealing-key-file={key_file}",
        "--snapshot-interval=7",
        "--dh-ratchet-every=1",
    )
    channels: list[Channel] = []
    for ending in (signal.SIGKILL, signal.SIGTERM):
        running = start(*flags)
        if channels:  # a channel of before the kill is recovered first
            async with client_of(running) as client:
                request = wire.RestoreRequest(connect_id=channels[0].connect_id)
                assert (await client.stub.Restore(request)).skipped_message_keys >= 1
        await _talk(witness, running, channels)
        running.signal(ending)
        witness.ended(running, channels)
    everything = b"\n".join(witness.texts)
    assert len(witness.secrets) > 200
    assert found_in(everything, witness.secrets) == []
    # It was talkative: the defect's traceback, each step of each message, its public parts.
    assert everything.count(b"a defect") >= 2
    assert everything.count(b'"event": "durable"') > 80
    assert b"MESSAGE_REPLAYED" in everything
    assert found_in(everything, {bytes.fromhex(running.ready["identity"])})


@pytest.mark.parametrize("spelled", range(8))
def test_the_search_finds_a_secret_however_it_is_spelled(spelled: int) -> None:
    secret = os.urandom(31) + b"\x00"
    text = [
        secret,
        secret.hex().encode(),
        repr(secret).encode(),
        json.dumps({"exc": repr(secret)}).encode(),
        base64.b64encode(secret),
        base64.urlsafe_b64encode(secret),
        str(list(secret)).encode(),
        secret[:16].hex().encode(),
    ][spelled]
    assert found_in(b"before " + text + b" after", {secret, os.urandom(32)}) == [secret]


# --- Every class --------------------------------------------------------------------------------

# What is shown and may be: public keys, signatures, and what went over the wire.
_PUBLIC = {
    "Header.ratchet_key",
    "Payload.nonce",
    "Payload.ciphertext",
    "Received.ratchet_key",
    "PrekeyBundle.identity_key",
    "PrekeyBundle.exchange_identity_key",
    "PrekeyBundle.signed_prekey",
    "PrekeyBundle.one_time_prekeys",
    "PrekeyBundle.signature",
    "Identity.public_key",
    "ChannelKeys.identity_key",
    "ChannelKeys.signature",
    # Digests: of what went over the wire, or keyed with a message key.
    "Received.digest",
    "ReceivedSkipped.digest",
    "ReceivedDelivery.digest",
    "IdempotentSend.digest",
    "IdempotentSend.nonce",
    "IdempotentSend.key",  # the caller's name for the message
    "DeliveryWindow._received",  # under public keys; the deliveries hide theirs
    "DeliveryWindow._sent",
    "MasterKey.id",
    # Owners are hashes of names, and certificates are shown to everybody.
    "Admitted.owners",
    "Batch.owners",
    "Principal.owner",
    "Recovery.owner",
    "_Live.owner",
    "_Waiting.owner",
    "Holder.digest",  # of a token, as it is stored
    "ClientTls.ca",
    "ClientTls.certificate",
    "Epoch.key_id",  # of the one that it seals under
    "ConnectEnvironment.random",  # a function that returns bytes
    "MessageStep.open",  # and two more
    "MessageStep.seal",
    "_Started.identity",  # the public half
}


def _classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(connect_actor.__path__, "connect_actor."):
        loaded = importlib.import_module(module.name)
        for value in vars(loaded).values():
            if inspect.isclass(value) and value.__module__ == module.name:
                yield value


def _shown_bytes(kind: type) -> Iterator[str]:
    """Name the fields of bytes that a class's own text shows."""
    if is_dataclass(kind):
        shown = [(field.name, field.type) for field in fields(kind) if field.repr]
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        made = inspect.getfile(kind.__repr__).endswith("collections/__init__.py")
        shown = list(kind.__annotations__.items()) if made else []
    else:
        return
    yield from (f"{kind.__name__}.{name}" for name, held in shown if "bytes" in str(held))


def test_no_class_shows_bytes_but_public_ones() -> None:
    shown = {name for kind in _classes() for name in _shown_bytes(kind)}
    assert shown == _PUBLIC
