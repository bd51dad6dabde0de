// A Helia that takes commands as JSON lines on stdin and answers each with one on stdout. It asks one
// delegated router, fetches by HTTP alone, and serves its own blocks (and says so, as a router) at
// 127.0.0.1:PORT.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { delegatedHTTPRouter } from '@helia/delegated-routing-client'
import { trustlessGatewayBlockBroker } from '@helia/trustless-gateway-client'
import { unixfs } from '@helia/unixfs'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const TOGETHER = 32
const [router, port, peerId] = process.argv.slice(2)
const helia = await createHeliaLight({
  blockBrokers: [trustlessGatewayBlockBroker({ allowInsecure: true, allowLocal: true })],
  routers: [delegatedHTTPRouter({ url: router })]
}).start()

// Fetch a file, verified block by block, and hash what came.
async function cat (cid, fs) {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const part of fs.cat(cid)) {
    hash.update(part)
    bytes += part.length
  }
  return { sha256: hash.digest('hex'), bytes }
}

// Fetch a directory and every file in it; the hash is over names and contents in order of names.
async function tree (cid, fs) {
  const entries = []
  for await (const entry of fs.ls(cid)) entries.push({ name: entry.name, cid: entry.cid })
  const waiting = entries.slice()
  await Promise.all(Array.from({ length: TOGETHER }, async () => {
    for (let entry = waiting.pop(); entry != null; entry = waiting.pop()) {
      entry.sha256 = (await cat(entry.cid, fs)).sha256
    }
  }))
  const hash = createHash('sha256')
  entries.sort((a, b) => a.name < b.name ? -1 : 1)
  for (const entry of entries) hash.update(`${entry.name} ${entry.sha256}\n`)
  return { sha256: hash.digest('hex'), entries: entries.length }
}

const commands = {
  // The blocks of one DAG come from whoever had its root, as in a Helia session.
  fetch: async ({ cid }) => cat(CID.parse(cid), session(cid)),
  tree: async ({ cid }) => tree(CID.parse(cid), session(cid)),
  add: async ({ bytes, seed }) => {
    const content = new Uint8Array(bytes)
    for (let i = 0; i < bytes; i++) content[i] = (seed + i + Math.floor(i / 251)) & 255
    return { cid: (await unixfs(helia).addBytes(content)).toString() }
  }
}

function session (cid) {
  return unixfs({ blockstore: helia.blockstore.createSession(CID.parse(cid)), logger: helia.logger })
}

// The trustless gateway and the router of what this Helia has.
async function serve (request, response) {
  const url = new URL(request.url, 'http://localhost')
  const [, first, second, third, fourth] = url.pathname.split('/')
  const cid = CID.parse(first === 'ipfs' ? second : fourth)
  const has = await helia.blockstore.has(cid)
  if (first === 'ipfs') {
    if (!has) return response.writeHead(404).end()
    const parts = []
    for await (const part of helia.blockstore.get(cid, { offline: true })) parts.push(part)
    return response.writeHead(200, { 'content-type': 'application/vnd.ipld.raw' }).end(Buffer.concat(parts))
  }
  if (third !== 'providers') return response.writeHead(404).end()
  const record = {
    Schema: 'peer',
    ID: peerId,
    Addrs: [`/ip4/127.0.0.1/tcp/${port}/http`],
    Protocols: ['transport-ipfs-gateway-http']
  }
  const lines = has ? JSON.stringify(record) + '\n' : ''
  response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end(lines)
}

createServer((request, response) => {
  serve(request, response).catch(error => response.writeHead(500).end(String(error)))
}).listen(Number(port), '127.0.0.1', () => console.log(JSON.stringify({ serving: true })))

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  try {
    console.log(JSON.stringify(await commands[command.do](command)))
  } catch (error) {
    console.log(JSON.stringify({ error: `${error.name}: ${error.message}` }))
  }
}
process.exit(0)
