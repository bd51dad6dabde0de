// The reference JavaScript implementation of IPNS, asked line by line (JSON on stdin and stdout).
// {"make": KIND, "v1": BOOL} makes a key and a record; {"name": B64, "record": B64} verifies one.
import { createInterface } from 'node:readline'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { createIPNSRecord, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsValidator } from 'ipns/validator'
import * as Digest from 'multiformats/hashes/digest'

const LIFETIME_MS = 3_600_000
const base64 = (bytes) => Buffer.from(bytes).toString('base64')
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))

async function make ({ make: kind, v1 }) {
  const key = await generateKeyPair(kind, kind === 'RSA' ? 2048 : undefined)
  const options = { ttlNs: 420_000_000_000n, v1Compatible: v1 }
  const record = await createIPNSRecord(key, '/ipfs/bafkqaaa/of-js', 7, LIFETIME_MS, options)
  return { name: key.publicKey.toCID().toString(), record: base64(marshalIPNSRecord(record)) }
}

async function verify ({ name, record }) {
  try {
    await ipnsValidator(multihashToIPNSRoutingKey(Digest.decode(bytes(name))), bytes(record))
  } catch (error) {
    return { error: String(error) }
  }
  const read = unmarshalIPNSRecord(bytes(record))
  return { value: read.value, sequence: Number(read.sequence), ttl_ns: Number(read.ttl), ends: read.validity }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  console.log(JSON.stringify(await (asked.make ? make(asked) : verify(asked))))
}
