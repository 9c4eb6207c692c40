// A client of Carousel for Node.js: calls that may be repeated, and sessions whose steps are applied once each.
'use strict'

const { randomUUID } = require('node:crypto')
const path = require('node:path')
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')
const { Frames, wait } = require('./frames')

const PROTO = path.join(__dirname, '../../protos/carousel/v1/carousel.proto')
const FORM = { keepCase: true, longs: Number, enums: String, defaults: true }
const { Carousel } = grpc.loadPackageDefinition(loader.loadSync(PROTO, FORM)).carousel.v1
const OPTIONS = {
  'grpc.initial_reconnect_backoff_ms': 20,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.keepalive_time_ms': 20000, // a connection that died without a word is noticed
  'grpc.keepalive_timeout_ms': 5000
}
const CALL_MS = 60000 // how long a call is tried
const PASSING = [grpc.status.UNAVAILABLE, grpc.status.CANCELLED]
const ARRAYS = {
  bool: Uint8Array,
  uint8: Uint8Array,
  int8: Int8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float16: Uint16Array, // its bits: JavaScript has no such numbers
  float32: Float32Array,
  float64: Float64Array
}

class Client {
  constructor (target, credentials = grpc.credentials.createInsecure()) {
    this.stub = new Carousel(target, credentials, OPTIONS)
    this.frames = new Frames(this.stub)
  }

  // Any unary call by its name in the proto file. While nobody answers, the same request goes out again.
  async call (name, request) {
    const deadline = Date.now() + CALL_MS
    for (let tries = 0; ; tries++) {
      try {
        return await this.callOnce(name, request, deadline)
      } catch (error) {
        if (!PASSING.includes(error.code) || Date.now() + 2000 > deadline) throw error
        await wait(tries)
      }
    }
  }

  callOnce (name, request, deadline) {
    return new Promise((resolve, reject) => {
      this.stub[name](request, { deadline }, (error, response) => error ? reject(error) : resolve(response))
    })
  }

  // The server knows a repeated call by its request id, and answers what it answered the first time.
  once (name, request) {
    return this.call(name, { ...request, request_id: randomUUID() })
  }

  async open (model, fields = {}) {
    const opened = await this.once('Open', { model, ...fields })
    const { models } = await this.call('ListModels', {})
    const served = models.find(({ name, version }) => name === opened.model && version === opened.version)
    return new Session(this, opened.session, JSON.parse(served.contract), opened.next_index)
  }

  close () {
    this.frames.close()
    this.stub.getChannel().close() // stub.close is our call of that name
  }
}

class Session {
  constructor (client, id, contract, nextIndex) {
    Object.assign(this, { client, id, contract, nextIndex })
    this.last = Promise.resolve()
  }

  // T steps: one typed array for each input of the contract, T times its shape; answers likewise. Calls take turns.
  step (length, inputs) {
    const turn = this.last.then(() => this.stepNow(length, inputs))
    this.last = turn.catch(() => {}) // whoever called is told
    return turn
  }

  async stepNow (length, inputs) {
    const blobs = inputs.map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength))
    const chunk = { session: this.id, contract: this.contract, first: this.nextIndex, length, inputs: blobs }
    const outputs = await this.client.frames.answer(chunk)
    this.nextIndex += length
    // A copy, since typed arrays want their memory aligned.
    return this.contract.outputs.map(({ dtype }, k) => new ARRAYS[dtype](new Uint8Array(outputs[k]).buffer))
  }

  async fork (count) {
    const { copies, next_index: index } = await this.client.once('Fork', { session: this.id, count })
    return copies.map((id) => new Session(this.client, id, this.contract, index))
  }

  async snapshot () {
    return (await this.client.call('Snapshot', { session: this.id })).snapshot
  }

  async restore (snapshot) {
    const { next_index: index } = await this.client.once('Restore', { session: this.id, snapshot })
    this.client.frames.detach(this.id) // it is a new life
    this.nextIndex = index
  }

  close () {
    return this.client.once('Close', { session: this.id })
  }
}

module.exports = { ARRAYS, Client }
