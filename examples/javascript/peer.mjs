// The peer's end of a channel (the initiator, A), written from docs/reference/protocol.md alone.
// Messages are plain objects with the field names of connect.proto; 64-bit numbers are strings.

import * as crypto from "node:crypto";

const MAX_SKIP = 1000; // messages missing before one, per chain
const MAX_SKIPPED_KEYS = 2000; // kept in all, the oldest go first
const MAX_CHAINS = 5; // receiving chains with skipped keys, the current one included

export class Refused extends Error {}

const refuseIf = (refused, why) => {
  if (refused) throw new Refused(why);
};

// --- Encodings -----------------------------------------------------------------------------------

const u32 = (number) => Buffer.from(number.toString(16).padStart(8, "0"), "hex");
const u64 = (number) => Buffer.from(BigInt.asUintN(64, BigInt(number)).toString(16).padStart(16, "0"), "hex");
const parts = (...strings) =>
  Buffer.concat(strings.flatMap((string) => [u32(Buffer.byteLength(string)), Buffer.from(string)]));

const content = (context, bundle) =>
  parts(
    "connect-actor prekey bundle v1",
    context,
    bundle.identity_key,
    bundle.exchange_identity_key,
    u32(bundle.signed_prekey_id),
    bundle.signed_prekey,
    ...bundle.one_time_prekeys.map(({ id, public_key }) => Buffer.concat([u32(id), public_key])),
  );

// --- Primitives ----------------------------------------------------------------------------------

// Node takes raw keys only inside their DER forms, whose heads are constant (RFC 8410).
const OID = { x25519: "6e", ed25519: "70" };
export const privateKey = (kind, raw) =>
  crypto.createPrivateKey({ format: "der", type: "pkcs8",
    key: Buffer.concat([Buffer.from(`302e020100300506032b65${OID[kind]}04220420`, "hex"), raw]) });
const publicKey = (kind, raw) =>
  crypto.createPublicKey({ format: "der", type: "spki",
    key: Buffer.concat([Buffer.from(`302a300506032b65${OID[kind]}032100`, "hex"), raw]) });
export const publicBytes = (key) => crypto.createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);

export const dh = (own, theirs) => {
  try {
    return crypto.diffieHellman({ privateKey: own, publicKey: publicKey("x25519", theirs) });
  } catch {
    throw new Refused("a key of small order"); // OpenSSL fails on an all-zero secret
  }
};

const P = 2n ** 255n - 19n;
const power = (base, exponent) =>
  exponent === 0n ? 1n : (power((base * base) % P, exponent >> 1n) * (exponent & 1n ? base : 1n)) % P;

// An Edwards point is of small order if its Montgomery form u = (1 + y) / (1 - y) is.
export const checkPoint = (encoded) => {
  const y = BigInt(`0x${Buffer.from(encoded).reverse().toString("hex")}`) & (2n ** 255n - 1n);
  refuseIf(y >= P, "a point that is not in its canonical form");
  const u = ((1n + y) * power((1n - y + P) % P, P - 2n)) % P;
  dh(crypto.generateKeyPairSync("x25519").privateKey, Buffer.from(u.toString(16).padStart(64, "0"), "hex").reverse());
};

export const verify = (identityKey, signature, message) => {
  refuseIf(signature.length !== 64, "a signature that isn't 64 bytes");
  [identityKey, signature.subarray(0, 32)].forEach(checkPoint);
  refuseIf(!crypto.verify(null, message, publicKey("ed25519", identityKey), signature), "a signature that doesn't fit");
};

const hkdf = (salt, material, info, length) => Buffer.from(crypto.hkdfSync("sha256", material, salt, info, length));
const hmac = (key, byte) => crypto.createHmac("sha256", key).update(Buffer.of(byte)).digest();
export const kdfRoot = (root, secret) => {
  const both = hkdf(root, secret, "connect-actor ratchet v1", 64);
  return [both.subarray(0, 32), both.subarray(32)];
};
export const kdfChain = (chain) => [hmac(chain, 1), hmac(chain, 2)]; // message key, next chain key
export const x3dh = (secrets) =>
  hkdf(Buffer.alloc(32), Buffer.concat([Buffer.alloc(32, 0xff), ...secrets]), "connect-actor X3DH v1", 32);

const checkBundle = (bundle, context) => {
  const prekeys = bundle.one_time_prekeys;
  refuseIf(prekeys.length > 200, "more than 200 one-time prekeys");
  refuseIf(new Set(prekeys.map(({ id }) => id)).size !== prekeys.length, "ids of one-time prekeys repeat");
  const exchanged = [bundle.exchange_identity_key, bundle.signed_prekey, ...prekeys.map((each) => each.public_key)];
  refuseIf([bundle.identity_key, ...exchanged].some((key) => key.length !== 32), "a key that isn't 32 bytes");
  const probe = crypto.generateKeyPairSync("x25519").privateKey;
  exchanged.forEach((key) => dh(probe, key));
  verify(bundle.identity_key, bundle.signature, content(context, bundle));
};

// --- The peer ------------------------------------------------------------------------------------

const clock = () => BigInt(Date.now()) * 1000n;

export class Peer {
  // identitySeed: the long-lived Ed25519 key, 32 bytes; pinned: the service's identity key, if known;
  // draw: random bytes; now: microseconds since 1970.
  constructor(identitySeed, { pinned, draw = crypto.randomBytes, now = clock, oneTimePrekeys = 0 } = {}) {
    Object.assign(this, { pinned, draw, now });
    const identity = privateKey("ed25519", identitySeed);
    const [exchangeIdentity, signedPrekey] = [this.#newKey(), this.#newKey()];
    const prekeys = Array.from({ length: oneTimePrekeys }, (_, index) => ({ id: index + 1, public_key: publicBytes(this.#newKey()) }));
    const ephemeral = this.#newKey();
    this.own = this.#newKey();
    const bundle = {
      identity_key: publicBytes(identity),
      exchange_identity_key: publicBytes(exchangeIdentity),
      signed_prekey_id: 1,
      signed_prekey: publicBytes(signedPrekey),
      one_time_prekeys: prekeys,
    };
    this.request = { bundle, ephemeral_key: publicBytes(ephemeral), ratchet_key: publicBytes(this.own) };
    const signed = content(parts("initiator", this.request.ephemeral_key, this.request.ratchet_key), bundle);
    bundle.signature = crypto.sign(null, signed, identity);
    this.handshake = { exchangeIdentity, ephemeral, digest: crypto.createHash("sha256").update(signed).digest() };
  }

  #newKey() {
    return privateKey("x25519", this.draw(32));
  }

  // Takes the EstablishResponse. A refusal changes nothing.
  complete(response) {
    const { exchangeIdentity, ephemeral, digest } = this.handshake;
    const { bundle, one_time_prekey_id: chosen, dh_ratchet_every: every } = response;
    const connectId = String(digest.readBigUInt64BE() >> 1n);
    refuseIf(this.pinned && !this.pinned.equals(bundle.identity_key), "another identity than the pinned one");
    refuseIf(response.connect_id !== connectId, "another channel");
    refuseIf(every === 0, "dh_ratchet_every is 0");
    const expiry = response.expires_at_unix_micros;
    checkBundle(bundle, parts("responder", digest, chosen === undefined ? "" : u32(chosen), u64(expiry), u32(every)));
    const prekey = bundle.one_time_prekeys.find(({ id }) => id === chosen);
    refuseIf(chosen !== undefined && !prekey, "a one-time prekey that the bundle lacks");
    const secret = x3dh([
      dh(exchangeIdentity, bundle.signed_prekey),
      dh(ephemeral, bundle.exchange_identity_key),
      dh(ephemeral, bundle.signed_prekey),
      ...(prekey ? [dh(ephemeral, prekey.public_key)] : []),
    ]);
    const own = this.request.bundle;
    this.ends = crypto.createHash("sha256").update(parts("connect-actor channel v1", u64(connectId),
      own.identity_key, own.exchange_identity_key, bundle.identity_key, bundle.exchange_identity_key)).digest();
    [this.root, this.sending] = kdfRoot(secret, dh(this.own, bundle.signed_prekey));
    Object.assign(this, { connectId, every, expiry, sent: 0, received: 0, previous: 0, theirTurn: true, skipped: new Map() });
    delete this.handshake; // its keys are erased
  }

  #associatedData(message) {
    return Buffer.concat([this.ends, message.dh_public_key, u32(message.previous_chain_length), u32(message.ratchet_index),
      u64(message.request_id), u64(message.created_at_unix_micros)]);
  }

  #checkLifetime() {
    refuseIf(this.now() >= BigInt(this.expiry), "the channel has expired");
  }

  seal(plaintext, requestId = "0", createdAt = String(this.now())) {
    this.#checkLifetime();
    if (this.pending && this.sent >= this.every) {
      this.own = this.#newKey();
      [this.root, this.sending] = kdfRoot(this.root, dh(this.own, this.pending));
      Object.assign(this, { previous: this.sent, sent: 0, pending: undefined, theirTurn: true });
    }
    refuseIf(this.sent > 2 ** 32 - 2, "the chain's numbers are used up");
    const message = {
      request_id: requestId,
      nonce: this.draw(12),
      ratchet_index: this.sent,
      previous_chain_length: this.previous,
      created_at_unix_micros: createdAt,
      dh_public_key: publicBytes(this.own),
    };
    let key;
    [key, this.sending] = kdfChain(this.sending);
    this.sent += 1;
    const cipher = crypto.createCipheriv("aes-256-gcm", key, message.nonce).setAAD(this.#associatedData(message));
    message.ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    return message;
  }

  // Returns the plaintext. A message that is refused changes nothing.
  open(message) {
    this.#checkLifetime();
    const { dh_public_key: theirs, ratchet_index: index, previous_chain_length: previous } = message;
    refuseIf(theirs.length !== 32 || message.nonce.length !== 12 || message.ciphertext.length < 16, "malformed");
    const chainName = theirs.toString("hex");
    const place = `${chainName} ${index}`;
    const kept = this.skipped.get(place);
    if (kept) {
      const plaintext = this.#decrypt(kept, message);
      this.skipped.delete(place);
      return plaintext;
    }
    const turns = chainName !== this.theirName;
    let [root, chain, next] = [this.root, this.receiving, this.received];
    if (turns) {
      refuseIf([...this.skipped.keys()].some((each) => each.startsWith(chainName)), "a replay");
      refuseIf(!this.theirTurn, "forged, or of a chain long forgotten");
      refuseIf(this.theirName && previous - next > MAX_SKIP, "too many messages are missing");
      next = 0;
    }
    refuseIf(index < next, "a replay");
    refuseIf(index - next > MAX_SKIP, "too many messages are missing");
    if (turns) [root, chain] = kdfRoot(root, dh(this.own, theirs));
    const passed = [];
    let key;
    for (; next <= index; next += 1) {
      [key, chain] = kdfChain(chain);
      passed.push([`${chainName} ${next}`, key]);
    }
    passed.pop(); // the message's own
    const plaintext = this.#decrypt(key, message);
    if (turns) {
      for (; this.theirName && this.received < previous; this.received += 1) {
        let left;
        [left, this.receiving] = kdfChain(this.receiving);
        this.skipped.set(`${this.theirName} ${this.received}`, left);
      }
      Object.assign(this, { theirName: chainName, pending: theirs, theirTurn: false });
    }
    Object.assign(this, { root, receiving: chain, received: next });
    passed.forEach(([name, each]) => this.skipped.set(name, each));
    this.#forgetOldest();
    return plaintext;
  }

  #decrypt(key, message) {
    const [ciphertext, tag] = [message.ciphertext.subarray(0, -16), message.ciphertext.subarray(-16)];
    const cipher = crypto.createDecipheriv("aes-256-gcm", key, message.nonce).setAAD(this.#associatedData(message)).setAuthTag(tag);
    try {
      return Buffer.concat([cipher.update(ciphertext), cipher.final()]);
    } catch {
      throw new Refused("the tag doesn't fit");
    }
  }

  #forgetOldest() {
    const chainOf = (place) => place.split(" ")[0];
    const chains = [...new Set([...this.skipped.keys()].map(chainOf).filter((name) => name !== this.theirName))];
    const dropped = chains.slice(0, Math.max(0, chains.length - (MAX_CHAINS - 1)));
    for (const place of [...this.skipped.keys()]) {
      if (dropped.includes(chainOf(place)) || this.skipped.size > MAX_SKIPPED_KEYS) this.skipped.delete(place);
    }
  }
}
