// Reads a plan from the standard input, makes its steps, and writes every answer:
//
//   echo '{"model": "stdlib", "sessions": {"a": [[1, 2], [3]], "b": [[4], [5, 6]]}}' | node demo.js 127.0.0.1:8001
//
// The plan has chunks of tokens for each session, for a model with one input; chunks of different sessions share frames.
// In the end the last chunk is stepped again: by a fork of the session, by the session itself, and by the session put
// back to where it stood before. Answers are base64 of little-endian numbers.
'use strict'

const { text } = require('node:stream/consumers')
const { ARRAYS, Client } = require('./client')

const main = async (target) => {
  const plan = JSON.parse(await text(process.stdin))
  const client = new Client(target)
  const answers = {}
  const run = async (id, chunks) => {
    const session = await client.open(plan.model, { session: id })
    const step = async (who, tokens) => {
      const { dtype } = session.contract.inputs[0]
      const inputs = ARRAYS[dtype].from(tokens, dtype === 'int64' ? BigInt : undefined)
      const [logits] = await who.step(tokens.length, [inputs])
      return Buffer.from(logits.buffer).toString('base64')
    }
    const told = []
    for (const tokens of chunks) told.push(await step(session, tokens))
    const last = chunks[chunks.length - 1]
    const [copy] = await session.fork(1)
    const snapshot = await session.snapshot()
    const forked = await step(copy, last)
    const before = await step(session, last)
    await session.restore(snapshot)
    const after = await step(session, last)
    answers[id] = { told, forked, before, after, next: [session.nextIndex, copy.nextIndex] }
  }
  try {
    await Promise.all(Object.entries(plan.sessions).map(([id, chunks]) => run(id, chunks)))
  } finally {
    client.close()
  }
  console.log(JSON.stringify(answers))
}

main(process.argv[2] ?? '127.0.0.1:8001').catch((error) => {
  console.error(`demo.js: ${error.message}`)
  process.exitCode = 1
})
