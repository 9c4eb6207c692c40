"""The messages of the peers' protocols, as far as a step needs them, in a pool of their own.

Source: `open_inference_grpc.proto` and `inference.proto` of TorchServe 0.12, whose first is the Open Inference Protocol
that MLServer and KServe speak. What is left out here is skipped by whoever reads the message.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_KINDS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int64": FieldDescriptorProto.TYPE_INT64,
}

_PACKAGE = "peers"
_pool = DescriptorPool()


def _message(name: str, *fields: str) -> Any:
    """The class of a message, its fields as a `.proto` file has them: `repeated int64 shape = 3`."""
    made = DescriptorProto(name=name)
    for text in fields:
        *repeated, kind, field, _, number = text.split()
        scalar = _KINDS.get(kind)
        made.field.add(
            name=field,
            number=int(number),
            label=FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL,
            type=scalar or FieldDescriptorProto.TYPE_MESSAGE,
            type_name=None if scalar else f".{_PACKAGE}.{kind}",
        )
    file = FileDescriptorProto(name=f"{name}.proto", package=_PACKAGE, syntax="proto3", message_type=[made])
    file.dependency.extend(
        f"{field.type_name.rsplit('.', 1)[1]}.proto" for field in made.field if field.type_name
    )
    _pool.Add(file)
    return GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


InferTensor = _message("InferTensor", "string name = 1", "string datatype = 2", "repeated int64 shape = 3")
ModelInferRequest = _message(
    "ModelInferRequest",
    "string model_name = 1",
    "repeated InferTensor inputs = 5",
    "repeated bytes raw_input_contents = 7",
)
ModelInferResponse = _message("ModelInferResponse", "repeated bytes raw_output_contents = 6")

Input = _message("Input", "string key = 1", "bytes value = 2")
"""An entry of a `map<string, bytes>`."""
PredictionsRequest = _message(
    "PredictionsRequest", "string model_name = 1", "repeated Input input = 3", "string sequence_id = 4"
)
Status = _message("Status", "int64 code = 1", "string message = 2")
PredictionResponse = _message("PredictionResponse", "bytes prediction = 1", "Status status = 3")
