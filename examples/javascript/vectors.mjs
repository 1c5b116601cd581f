// Checks the peer against the test vectors: node vectors.mjs

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { checkPoint, dh, kdfChain, kdfRoot, Peer, privateKey, publicBytes, Refused, verify, x3dh } from "./peer.mjs";
import { message } from "./wire.mjs";

const vectors = JSON.parse(readFileSync(new URL("../../tests/protocol/data/vectors.json", import.meta.url)));
const bytes = (hex) => Buffer.from(hex, "hex");

// Single steps.
const { chain, root } = vectors.steps;
assert.deepEqual(kdfChain(bytes(chain.chain_key)), [chain.message_key, chain.next_chain_key].map(bytes));
assert.deepEqual(kdfRoot(bytes(root.root_key), bytes(root.shared_secret)), [root.next_root_key, root.chain_key].map(bytes));

// X3DH, with and without a one-time prekey.
for (const vector of vectors.x3dh) {
  const own = (name) => privateKey("x25519", bytes(vector.private[name]));
  const theirs = (name) => bytes(vector.public[name]);
  for (const name in vector.private) assert.deepEqual(publicBytes(own(name)), theirs(name));
  const secrets = [dh(own("IK_A"), theirs("SPK_B")), dh(own("EK_A"), theirs("IK_B")), dh(own("EK_A"), theirs("SPK_B"))];
  if (vector.public.OPK_B) secrets.push(dh(own("EK_A"), theirs("OPK_B")));
  assert.deepEqual(x3dh(secrets), bytes(vector.SK));
}

// Channels, to the byte, from what was drawn.
for (const { dh_ratchet_every, handshake, messages, order, root_keys_at_the_end } of vectors.channels) {
  const draws = handshake.initiator.random.map(bytes);
  for (const each of messages.filter(({ sender }) => sender === "initiator")) {
    if (each.new_ratchet_private_key) draws.push(bytes(each.new_ratchet_private_key));
    draws.push(bytes(each.nonce));
  }
  const now = () => BigInt(handshake.now_unix_micros);
  const peer = new Peer(bytes(handshake.initiator.identity_seed), { draw: () => draws.shift(), now, oneTimePrekeys: 1 });
  assert.deepEqual(message("EstablishRequest").serialize(peer.request), bytes(handshake.request));
  peer.complete(message("EstablishResponse").deserialize(bytes(handshake.response)));
  assert.equal(peer.connectId, handshake.connect_id);
  assert.equal(peer.every, dh_ratchet_every);
  assert.deepEqual(peer.ends, bytes(handshake.associated_data));
  assert.deepEqual(peer.root, bytes(handshake.root_key_after_the_first_turn));
  for (const step of order) {
    const vector = messages[step.send ?? step.receive];
    const sent = message("CipherPayload").deserialize(bytes(vector.wire));
    const ours = vector.sender === "initiator";
    if (ours && "send" in step) {
      assert.deepEqual({ ...peer.seal(bytes(vector.plaintext), vector.request_id, vector.created_at_unix_micros) }, { ...sent });
    } else if (!ours && "receive" in step) {
      assert.deepEqual(peer.open(sent), bytes(vector.plaintext));
      assert.throws(() => peer.open(sent), Refused);
    }
  }
  assert.deepEqual(peer.root, bytes(root_keys_at_the_end.initiator));
  assert.equal(draws.length, 0);
}

// Keys and signatures that are refused.
const probe = privateKey("x25519", bytes(vectors.x3dh[0].private.IK_A));
for (const key of vectors.refused_keys.X25519) assert.throws(() => dh(probe, bytes(key)), Refused);
for (const key of vectors.refused_keys.Ed25519) assert.throws(() => checkPoint(bytes(key)), Refused);
for (const { what, identity_key, signature, message: signed, accepted } of vectors.signatures) {
  const check = () => verify(bytes(identity_key), bytes(signature), bytes(signed));
  accepted ? assert.doesNotThrow(check, what) : assert.throws(check, Refused, what);
}

console.log(`${vectors.channels.length} channels, ${vectors.signatures.length} signatures: as the vectors say`);
