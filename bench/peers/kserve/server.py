"""A model of the KServe SDK that keeps states, behind the SDK's gRPC server alone: `python server.py PORT`."""

import logging
import sys
from typing import Any

import grpc
import uvloop
from kserve import InferRequest, Model, ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from states import States

MESSAGE_BYTES = 8 << 20
_any_address = grpc.aio.server


class Recurrence(Model):
    """One step of one session a call: the SDK has no batcher for gRPC."""

    def __init__(self) -> None:
        super().__init__("bench")
        self.states = States("model.onnx")
        self.ready = True

    async def predict(self, payload: InferRequest, headers: dict | None = None) -> ModelInferResponse:  # noqa: ARG002
        """Answer `session [1, 1]` and `x [1, I]` with `y [1, H]`, in the message that goes out, which spares a copy."""
        session, x = payload.inputs
        y = self.states.step([int(session.as_numpy()[0, 0])], x.as_numpy())
        output = ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=y.shape)
        return ModelInferResponse(
            id=payload.id, model_name=self.name, outputs=[output], raw_output_contents=[y.tobytes()]
        )


def _on_loopback(*args: Any, **options: Any) -> grpc.aio.Server:
    """A gRPC server that takes the address KServe always gives, every interface, to mean this machine only."""
    server = _any_address(*args, **options)
    listen = server.add_insecure_port
    server.add_insecure_port = lambda address: listen(address.replace("[::]", "127.0.0.1"))
    return server


def main() -> None:
    """Serve on the port of the command line until ended."""
    logging.getLogger("kserve").setLevel(logging.WARNING)  # it says a line a call
    grpc.aio.server = _on_loopback
    models = ModelRepository()
    models.update(Recurrence())
    limits = dict.fromkeys(("grpc_max_send_message_length", "grpc_max_receive_message_length"), MESSAGE_BYTES)
    server = GRPCServer(int(sys.argv[1]), DataPlane(models), ModelRepositoryExtension(models), kwargs=limits)
    uvloop.run(server.start(max_workers=1))


if __name__ == "__main__":
    main()
