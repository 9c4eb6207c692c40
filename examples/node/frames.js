// Chunks of steps on their way to the server, as columnar frames over one stream.
//
// What a broken stream leaves without an answer goes out again on the next one. The server knows a chunk by its first
// index and its content: one that it has applied it does not apply again, but answers as it did the first time.
'use strict'

const { status } = require('@grpc/grpc-js')

const FRAME_CHUNKS = 1024 // of a frame, and of a stream at once
const PASSING = new Set(['WINDOW_FULL', 'QUEUE_FULL', 'QUOTA_EXCEEDED', 'DRAINING'])
const LASTING = new Set([
  status.INVALID_ARGUMENT, status.UNIMPLEMENTED, status.UNAUTHENTICATED, status.PERMISSION_DENIED
]) // another stream would end the same way

// 20 ms to 2 s, with jitter: clients that lost the same server must not come back in one wave.
const wait = (tries) => {
  const ms = Math.min(20 * 2 ** tries, 2000) * (1 - Math.random() / 2)
  return new Promise((resolve) => setTimeout(resolve, ms))
}

class Frames {
  constructor (stub) {
    this.stub = stub
    this.chunks = new Map() // by session, one each
    this.tries = 0
    this.forget()
  }

  forget () {
    this.stream = null
    this.handles = new Map() // of the sessions attached on this stream
    this.sessions = [] // by handle
    for (const chunk of this.chunks.values()) chunk.sent = false
  }

  detach (session) {
    this.handles.delete(session)
  }

  // Resolves to the outputs of a chunk, a blob each, once it was applied.
  answer (chunk) {
    return new Promise((resolve, reject) => {
      this.chunks.set(chunk.session, { ...chunk, sent: false, resolve, reject })
      setImmediate(() => this.send()) // all that is asked for in one turn of the loop shares a frame
    })
  }

  send () {
    const unsent = [...this.chunks.values()].filter((chunk) => !chunk.sent)
    const room = FRAME_CHUNKS - (this.chunks.size - unsent.length)
    const layout = unsent[0]?.contract.signature.layout // the chunks of a frame share their tensors
    const chunks = unsent.filter(({ contract }) => contract.signature.layout === layout).slice(0, room)
    if (!chunks.length) return
    this.stream ??= this.connect()
    const strangers = chunks.map(({ session }) => session).filter((session) => !this.handles.has(session))
    if (strangers.length) this.stream.write({ attach: { sessions: strangers } })
    for (const session of strangers) this.handles.set(session, this.sessions.push(session) - 1)
    for (const chunk of chunks) chunk.sent = true
    this.stream.write({ steps: this.frame(chunks) })
    setImmediate(() => this.send()) // those of other models
  }

  frame (chunks) {
    const blob = (k) => Buffer.concat(chunks.map(({ inputs }) => inputs[k]))
    return {
      handles: chunks.map(({ session }) => this.handles.get(session)),
      first_indices: chunks.map(({ first }) => first),
      lengths: chunks.map(({ length }) => length),
      acknowledged: chunks.map(({ first }) => first), // all answers before this chunk have come
      inputs: chunks[0].contract.inputs.map(({ name }, k) => ({ name, data: blob(k) }))
    }
  }

  connect () {
    const stream = this.stub.Stream()
    stream.on('data', ({ attached, answers }) => attached ? this.onAttached(attached) : this.onAnswers(answers))
    stream.on('end', () => this.onBroken(stream, new Error('the server ended the stream')))
    stream.on('error', (error) => this.onBroken(stream, error))
    return stream
  }

  async onBroken (stream, error) {
    if (stream !== this.stream) return
    this.forget()
    if (LASTING.has(error.code)) for (const chunk of this.chunks.values()) this.settle(chunk, chunk.reject, error)
    await wait(this.tries++)
    this.send()
  }

  onAttached ({ first_handle: first, errors }) {
    for (const error of errors) this.onRefused(this.chunks.get(this.sessions[first + error.position]), error)
  }

  onAnswers ({ handles, first_indices: firsts, lengths, outputs, errors }) {
    const refused = new Map(errors.map((error) => [error.position, error]))
    const steps = lengths.reduce((sum, length) => sum + length, 0)
    let next = 0
    handles.forEach((handle, k) => {
      const [start, end] = [next, next + lengths[k]]
      next = end
      const chunk = this.chunks.get(this.sessions[handle])
      if (chunk?.first !== firsts[k]) return // it was answered before
      if (refused.has(k)) return this.onRefused(chunk, refused.get(k))
      const rows = (data) => data.subarray(data.length / steps * start, data.length / steps * end)
      const output = ({ name }) => rows(outputs.find((tensor) => tensor.name === name).data)
      this.tries = 0
      this.settle(chunk, chunk.resolve, chunk.contract.outputs.map(output))
    })
  }

  async onRefused (chunk, { reason, message, expected_index: expectedIndex }) {
    if (!chunk) return
    if (!PASSING.has(reason)) {
      return this.settle(chunk, chunk.reject, Object.assign(new Error(message), { reason, expectedIndex }))
    }
    await wait(this.tries++)
    chunk.sent = false
    this.send()
  }

  settle (chunk, how, outcome) {
    this.chunks.delete(chunk.session)
    how(outcome)
    setImmediate(() => this.send()) // there is room for another
  }

  close () {
    const stream = this.stream
    this.stream = null
    stream?.cancel()
  }
}

module.exports = { Frames, wait }
