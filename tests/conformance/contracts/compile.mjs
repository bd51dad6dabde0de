// The Solidity compiler: standard JSON from stdin to stdout.
import { readFileSync } from 'node:fs'
import solc from 'solc'

process.stdout.write(solc.compile(readFileSync(0, 'utf8')))
