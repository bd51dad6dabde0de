// Reads cases from stdin (JSON lines) and prints the root CID that the reference importer gives.
// A case is {profile, entries: [{path, seed, bytes} | {path, directory: true} | {path, link}]}.
import { createInterface } from 'node:readline'
import { importer } from 'ipfs-unixfs-importer'

// The same generator as in the test: byte i of a file is (seed + i + floor(i / 251)) mod 256.
function * content (seed, bytes) {
  const piece = 1 << 20
  for (let start = 0; start < bytes; start += piece) {
    const part = new Uint8Array(Math.min(piece, bytes - start))
    for (let i = 0; i < part.length; i++) {
      const at = start + i
      part[i] = (seed + at + Math.floor(at / 251)) & 255
    }
    yield part
  }
}

async function * files (entries) {
  for (const entry of entries) {
    if (entry.link !== undefined) yield { path: entry.path, link: entry.link }
    else if (entry.directory) yield { path: entry.path }
    else yield { path: entry.path, content: content(entry.seed, entry.bytes) }
  }
}

const blockstore = { put: async (cid) => cid, has: async () => false }

for await (const line of createInterface({ input: process.stdin })) {
  const { profile, entries } = JSON.parse(line)
  let root
  for await (const entry of importer(files(entries), blockstore, { profile })) root = entry
  console.log(JSON.stringify({ cid: root.cid.toString(), size: Number(root.size) }))
}
