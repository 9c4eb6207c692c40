"""The floor under every figure: a bare `grpc.aio` server that sends back what it gets.

`python -m bench.echo` prints its port and serves until it is ended. `bytes` sends every message back as it came;
`columns` takes a step frame apart, checks its columns and blobs, and answers with the same blobs.
"""

import argparse
from collections.abc import Callable
from typing import Any

import grpc
import uvloop

from carousel.wire.carousel_pb2 import AnswerFrame, StreamRequest, StreamResponse
from carousel.wire.frames import columns

Reply = Callable[[bytes], bytes]


def reply_bytes(message: bytes) -> bytes:
    """The message as it came."""
    return message


def reply_columns(message: bytes) -> bytes:
    """An answer frame with the blobs of the step frame, whose columns were looked at."""
    frame = StreamRequest.FromString(message).steps
    handles, first_indices, lengths, _ = columns(frame)
    steps = sum(lengths)
    if any(len(tensor.data) % steps for tensor in frame.inputs):
        raise ValueError("a blob is no multiple of the steps")
    answers = AnswerFrame(
        handles=handles, first_indices=first_indices or [], lengths=lengths, outputs=frame.inputs
    )
    return StreamResponse(answers=answers).SerializeToString()


async def serve(reply: Reply) -> None:
    """Serve on a free port of 127.0.0.1 until cancelled."""

    async def stream(_: Any, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        while isinstance(message := await context.read(), bytes):
            await context.write(reply(message))

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Stream": grpc.stream_stream_rpc_method_handler(stream)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Serve what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bytes", "columns"))
    kind = parser.parse_args().kind
    uvloop.run(serve(reply_bytes if kind == "bytes" else reply_columns))


if __name__ == "__main__":
    main()
