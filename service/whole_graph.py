"""Runs whole-input graphs with ONNX Runtime: models without sessions, and graphs that sessions begin with."""

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import structlog

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.cohort import Array
from service.denormals import Denormals
from service.errors import BackendFailedError
from service.whole_inputs import WholeInputs, shape_of

if TYPE_CHECKING:
    import onnxruntime

_log = structlog.get_logger(__name__)

_WARM = {"batch": 1, "time": 2, "node": 2}


class Ran(NamedTuple):
    """What a run gave."""

    outputs: tuple[Array, ...]
    """In the order of the contract, each with the sizes of its axes in the inputs."""
    seconds: float
    """Time in the runtime."""


class WholeGraph:
    """One `InferenceSession` that touches no state row; for the thread that runs models."""

    def __init__(self, session: "onnxruntime.InferenceSession", contract: Contract, key: str) -> None:
        self.contract = contract
        self._key = key
        """Of the model, for the log."""
        self._session = session
        self._denormals = Denormals()

    def run(self, inputs: WholeInputs) -> Ran:
        """Run once.

        Raises:
            BackendFailedError: ONNX Runtime has failed, or what came out has other shapes than the contract says.
        """
        try:
            return self._call(inputs)
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            _log.error("run_failed", model=self._key, graph=self.contract.kind, exc_info=error)
            raise BackendFailedError("inference failed; nothing was applied") from error

    def _call(self, inputs: WholeInputs) -> Ran:
        ports = self.contract.outputs
        started = time.perf_counter()
        with self._denormals.as_zero():
            outputs = self._session.run([port.name for port in ports], inputs.arrays)
        seconds = time.perf_counter() - started
        for port, array in zip(ports, outputs, strict=True):
            expected = shape_of(port, inputs.sizes)
            if array.shape != expected:
                raise ValueError(f"{port.name}: expected {list(expected)}, got {list(array.shape)}")
        return Ran(tuple(outputs), seconds)

    def warm_up(self) -> None:
        """Run the shortest sequence or tree that there is, and throw the result away."""
        arrays: dict[str, Array] = {}
        for port in self.contract.inputs:
            nobody = -1 if port.earlier_nodes else 0
            arrays[port.name] = np.full(shape_of(port, _WARM), nobody, NUMPY[port.dtype])
        if self.contract.lengths:
            arrays[self.contract.lengths] = np.full(_WARM["batch"], _WARM["time"], np.int32)
        self._call(WholeInputs(arrays, _WARM))
