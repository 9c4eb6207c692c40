"""Both sides of the comparison, behind one call: a step graph in ONNX Runtime and the same model in PyTorch.

A call takes tokens `[B, T]` int64 or numbers `[B, T, n]`, those of all ports side by side, lengths `[B]` int32 and rows
`[B, S]` float32, those of all planes side by side, and gives the outputs `[B, T, V]` and the next rows `[B, S]`.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from carousel.contract import Arena, Contract, Segment
from export.external import LARGEST_BYTES, apart, refer_to, weight_bytes
from export.packing import packed, unpacked
from model.tasks.step_model import StepModel

Tokens = NDArray[np.int64]
Lengths = NDArray[np.int32]
Values = NDArray[np.floating[Any]]
Inputs = Tokens | Values
Step = Callable[[Inputs, Lengths, Values], tuple[Values, Values]]


def open_session(
    model: onnx.ModelProto, largest_bytes: int = LARGEST_BYTES // 2
) -> onnxruntime.InferenceSession:
    """A graph on the CPU, one thread; a model of more than `largest_bytes` is not copied."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # As the service opens it (service/runtime.py): what is verified is what is served.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if weight_bytes(model) > largest_bytes:
        # As a message, the model would be too large; the runtime is handed its weights where they lie.
        model, large = apart(model)
        refer_to(model, large)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(one)) for one in large]
        options.add_external_initializers([weight.name for weight in large], values)
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["GatherSliceToSplitFusion"],
    )


class OnnxStep:
    """A step graph on the CPU, one thread; one of the arena form has an arena of its own in each call."""

    def __init__(self, model: onnx.ModelProto, contract: Contract) -> None:
        self._session = open_session(model)
        self._ports, self._lengths = (contract.inputs, contract.outputs), contract.lengths
        self._planes = [plane.input for plane in contract.planes]
        self._cuts = np.cumsum([plane.size for plane in contract.planes])[:-1]
        self._outputs = [*(port.name for port in contract.outputs), str(contract.planes[0].output)]
        self._arena = contract.arena
        self._max_steps = contract.max_steps

    def __call__(self, inputs_BT: Inputs, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        """Run the graph, again and again where it takes fewer steps, as a service does; see the module for shapes."""
        steps, most = inputs_BT.shape[1], self._max_steps
        if steps <= most:
            return self._one_run(inputs_BT, lengths_B, rows_BS)
        rows_BS, outputs = rows_BS.copy(), []
        for start in range(0, steps, most):
            going = np.flatnonzero(lengths_B > start)  # a row takes at least one step in a run
            lengths = np.minimum(lengths_B[going] - start, most).astype(np.int32)
            part, rows_BS[going] = self._one_run(
                inputs_BT[going, start : start + most], lengths, rows_BS[going]
            )
            outputs.append(np.zeros((len(rows_BS), *part.shape[1:]), part.dtype))
            outputs[-1][going] = part
        return np.concatenate(outputs, axis=1), rows_BS

    def _one_run(self, inputs_BT: Inputs, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        planes = np.split(rows_BS, self._cuts, axis=1)
        feeds = unpacked(self._ports[0], inputs_BT) | {self._lengths: lengths_B}
        feeds |= dict(zip(self._planes, planes, strict=True))
        if self._arena is None:
            outputs, rows = self._run(feeds)
            return outputs, np.concatenate([rows, *planes[1:]], axis=1)
        outputs, arena = self._run(feeds | self._in_an_arena(self._arena, rows_BS))
        return outputs, arena[len(rows_BS) :]

    def told_finite(
        self, inputs_BT: Inputs, lengths_B: Lengths, rows_BS: Values
    ) -> tuple[NDArray[np.bool_], Values]:
        """Of each next row whether the graph calls it finite `[B]`, and the rows; of the arena form, one run."""
        assert self._arena is not None
        feeds = unpacked(self._ports[0], inputs_BT) | {self._lengths: lengths_B}
        feeds |= self._in_an_arena(self._arena, rows_BS)
        finite, arena = self._session.run([self._arena.finite, self._outputs[-1]], feeds)
        return np.isfinite(finite), arena[len(rows_BS) :]

    def _in_an_arena(self, arena: Arena, rows_BS: Values) -> dict[str, NDArray[Any]]:
        """The rows that are read come first and stay, those that are written after them."""
        read_rows = np.arange(len(rows_BS))
        return {
            self._planes[0]: np.concatenate([rows_BS, np.zeros_like(rows_BS)]),
            arena.read_rows: read_rows,
            arena.write_rows: len(rows_BS) + read_rows,
        }

    def _run(self, feeds: dict[str, NDArray[Any]]) -> tuple[Values, Values]:
        *outputs, rows = self._session.run(self._outputs, feeds)
        return packed(self._ports[1], dict(zip(self._outputs, outputs, strict=False))), rows


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: rows are run alone, and idle threads that spin beside other work cost 5 times that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def row_by_row(
    play: Callable[[Inputs, Values], tuple[Values, Values]],
    inputs_BT: Inputs,
    lengths_B: Lengths,
    rows_BS: Values,
) -> tuple[Values, Values]:
    """Run every row by itself; outputs beyond a row's length are zero. See the module for shapes.

    Args:
        play: From a row's inputs `[T, ...]` and its start `[S]` to its outputs `[T, V]` and its end.
        inputs_BT: Of all rows.
        lengths_B: Of all rows.
        rows_BS: Their starts.
    """
    played = [
        play(inputs_T[:length], row_S)
        for inputs_T, length, row_S in zip(inputs_BT, lengths_B, rows_BS, strict=True)
    ]
    width = played[0][0].shape[-1]
    outputs_BTV = np.zeros((*inputs_BT.shape[:2], width), dtype=played[0][0].dtype)
    for row, (outputs_TV, _) in enumerate(played):
        outputs_BTV[row, : len(outputs_TV)] = outputs_TV
    return outputs_BTV, np.stack([row_S for _, row_S in played])


class TorchStep:
    """The model in PyTorch, one row at a time and without padding, so that nothing is shared with the graph."""

    def __init__(self, model: StepModel, segments: tuple[Segment, ...], dtype: torch.dtype) -> None:
        self._model = copy.deepcopy(model).to("cpu", dtype).eval()
        self._states = [type(state) for state in self._model.initial_state(1)]
        self._cuts = [segment.start for segment in segments[1:]]
        self._dtype = dtype

    def __call__(self, inputs_BT: Inputs, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        """Run the model; outputs beyond a row's length are zero. See the module for shapes."""
        return row_by_row(self._play, inputs_BT, lengths_B, rows_BS)

    @torch.no_grad()
    def _play(self, inputs_T: Inputs, row_S: Values) -> tuple[Values, Values]:
        parts = iter(torch.as_tensor(part, dtype=self._dtype)[None] for part in np.split(row_S, self._cuts))
        state = tuple(layer(*(next(parts) for _ in layer._fields)) for layer in self._states)
        inputs = torch.as_tensor(inputs_T)[None]
        outputs, state = self._model(inputs.to(self._dtype) if inputs.is_floating_point() else inputs, state)
        return outputs[0].numpy(), torch.cat([part for layer in state for part in layer], dim=1)[0].numpy()
