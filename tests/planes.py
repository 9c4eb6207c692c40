"""The fake model with a read-only plane: a number of each session that every one of its steps adds.

A session begins with what `FakePriming` makes of one number v: the state v, and the plane v + 1.
"""

import numpy as np

from carousel.contract import Contract, Plane, Port, Segment, Signature, layout_hash
from carousel.wire import carousel_pb2 as pb
from service.whole_graph import Ran
from service.whole_inputs import WholeInputs

PLANE = Plane(input="added", output=None, dtype="float32", size=1)
SOURCES = 1000


def with_plane(plain: Contract) -> Contract:
    """The contract of a model, and a plane that its sessions read."""
    planes = (*plain.planes, PLANE)
    layout = layout_hash("fake", plain.inputs, plain.outputs, planes, plain.segments)
    signature = Signature(layout=layout, lineage=plain.signature.lineage)
    return plain.model_copy(update={"format": 3, "planes": planes, "signature": signature})


def source(value: float) -> pb.Array:
    """What a session is opened with."""
    return pb.Array(name="source", shape=[1, 1], data=np.array([value], "<f4").tobytes())


def primed(value: float) -> tuple[float, float]:
    """The state and the plane that come of it."""
    return value, value + 1


class FakePriming:
    """Makes what sessions of a model begin with."""

    def __init__(self, contract: Contract) -> None:
        outputs = tuple(
            Port(name=plane.input, dtype=plane.dtype, shape=(plane.size,), axes=("batch",))
            for plane in contract.planes
        )
        inputs = (Port(name="source", dtype="float32"),)
        segments: tuple[Segment, ...] = ()
        layout = layout_hash("fake", inputs, outputs, (), segments)
        self.contract = Contract(
            format=3,
            kind="priming",
            task="fake",
            recurrence="fake",
            inputs=inputs,
            outputs=outputs,
            lengths="lengths",
            planes=(),
            segments=segments,
            invariant=True,
            signature=Signature(layout=layout, lineage=contract.signature.lineage),
            primes=contract.signature,
        )

    def run(self, inputs: WholeInputs) -> Ran:
        """As `WholeGraph`."""
        numbers = primed(float(inputs.arrays["source"][0, 0]))
        return Ran(tuple(np.full((1, 1), number, np.float32) for number in numbers), 0.0)
