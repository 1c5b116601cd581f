// Talks to a service as a peer and as its application: node talk.mjs 127.0.0.1:50051

import * as grpc from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { Peer } from "./peer.mjs";
import { ConnectService, reasonOf, statusOfCall } from "./wire.mjs";

const client = new ConnectService(process.argv[2], grpc.credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
const call = (name, request) => promisify(client[name]).call(client, request);

// A channel.
const peer = new Peer(randomBytes(32)); // long-lived in earnest: keep it, it is what others pin
peer.complete(await call("Establish", peer.request));
const connect_id = peer.connectId;
const encrypt = (text, more = {}) => call("Encrypt", { connect_id, plaintext: Buffer.from(text), ...more });
const decrypt = (payload) => call("Decrypt", { connect_id, payload });
console.log("established a channel that turns its ratchet every", peer.every, "messages");

// Both directions.
console.log("the peer reads:", String(peer.open((await encrypt("to the peer")).payload)));
console.log("the service reads:", String((await decrypt(peer.seal("to the service"))).plaintext));

// Out of order.
const [first, second] = [peer.seal("first"), peer.seal("second")];
console.log("the service reads:", String((await decrypt(second)).plaintext));
console.log("the service reads:", String((await decrypt(first)).plaintext));
const [early, late] = [(await encrypt("early")).payload, (await encrypt("late")).payload];
console.log("the peer reads:", String(peer.open(late)), "before", String(peer.open(early)));

// Turns of the DH ratchet: each end makes a new key once its chain is long enough.
const keys = { peer: new Set(), service: new Set() };
for (let number = 0; number < 3 * peer.every; number += 1) {
  const up = peer.seal(`up ${number}`);
  assert.equal(String((await decrypt(up)).plaintext), `up ${number}`);
  const down = (await encrypt(`down ${number}`)).payload;
  assert.equal(String(peer.open(down)), `down ${number}`);
  keys.peer.add(up.dh_public_key.toString("hex"));
  keys.service.add(down.dh_public_key.toString("hex"));
}
assert(keys.peer.size > 1 && keys.service.size > 1);
console.log("both ends have turned");

// Redelivery: an answer that got lost is given again to the same request.
const named = { idempotency_key: Buffer.from("order 7") };
const [given, again] = [await encrypt("once", named), await encrypt("once", named)];
assert.deepEqual(again.payload, given.payload);
console.log("given again:", again.redelivered, String(peer.open(again.payload)));
const repeated = peer.seal("once more");
await decrypt(repeated);
const answer = await decrypt(repeated);
console.log("given again:", answer.redelivered, String(answer.plaintext));

// After its acknowledgement a message is refused, with a reason for programs.
await call("Acknowledge", { connect_id, up_to_delivery_number: answer.delivery_number });
const refusal = await decrypt(repeated).then(() => assert.fail("accepted twice"), (error) => error);
console.log("refused:", reasonOf(statusOfCall(refusal)));

// Exchange: many operations in a frame, answered one by one.
const stream = client.Exchange();
const results = new Map();
const operations = Array.from({ length: 64 }, (_, index) => ({
  operation_id: String(index),
  ...(index % 2 ? { decrypt: { connect_id, payload: peer.seal(`up ${index}`) } } : { encrypt: { connect_id, plaintext: Buffer.from(`down ${index}`) } }),
}));
operations.push({ operation_id: "64", restore: { connect_id: "42" } });
stream.write({ operations });
for await (const frame of stream) {
  for (const result of frame.results) results.set(result.operation_id, result);
  if (results.size === operations.length) stream.end();
}
for (let index = 0; index < 64; index += 1) {
  const result = results.get(String(index));
  const text = index % 2 ? result.decrypt.plaintext : peer.open(result.encrypt.payload);
  assert.equal(String(text), `${index % 2 ? "up" : "down"} ${index}`);
}
console.log("exchanged", results.size - 1, "operations; refused:", reasonOf(results.get("64").error));

await call("Close", { connect_id });
console.log("closed");
// client.close() is the RPC Close here, which hides grpc-js's own: the connection ends through its channel.
client.getChannel().close();
