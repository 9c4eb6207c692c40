"""Both sides of the comparison, behind one call: a step graph in ONNX Runtime and the same model in PyTorch.

A call takes tokens `[B, T]` int64, lengths `[B]` int32 and state rows `[B, S]` float32, and gives the outputs
`[B, T, V]` and the next rows `[B, S]`.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from carousel.contract import Contract, Segment
from model.tasks.characters import CharacterModel

Tokens = NDArray[np.int64]
Lengths = NDArray[np.int32]
Values = NDArray[np.floating[Any]]
Inputs = Tokens | Values


class OnnxStep:
    """A step graph on the CPU, one thread; one of the arena form has an arena of its own in each call."""

    def __init__(self, model: onnx.ModelProto, contract: Contract) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        if contract.precision == "fp16":
            # Made for CUDA. The last level of optimisation, for the CPU's own kernels, brings ONNX Runtime 1.32 down.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        plane = contract.planes[0]
        self._inputs = (contract.inputs[0].name, contract.lengths, plane.input)
        self._outputs = (contract.outputs[0].name, plane.output)
        self._arena = contract.arena

    def __call__(self, inputs_BT: Inputs, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        """Run the graph; see the module for shapes."""
        feeds = dict(zip(self._inputs, (inputs_BT, lengths_B, rows_BS), strict=True))
        if self._arena is None:
            outputs, rows = self._session.run(self._outputs, feeds)
            return outputs, rows
        # The rows that are read come first and stay, those that are written after them.
        batch = len(rows_BS)
        read_rows = np.arange(batch)
        feeds[self._inputs[-1]] = np.concatenate([rows_BS, np.zeros_like(rows_BS)])
        feeds |= {self._arena.read_rows: read_rows, self._arena.write_rows: batch + read_rows}
        outputs, arena = self._session.run(self._outputs, feeds)
        return outputs, arena[batch:]


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: rows are run alone, and idle threads that spin beside other work cost 5 times that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchStep:
    """The model in PyTorch, one row at a time and without padding, so that nothing is shared with the graph."""

    def __init__(self, model: CharacterModel, segments: tuple[Segment, ...], dtype: torch.dtype) -> None:
        self._model = copy.deepcopy(model).to("cpu", dtype).eval()
        self._states = [type(state) for state in self._model.stack.initial_state(1)]
        self._cuts = [segment.start for segment in segments[1:]]
        self._dtype = dtype

    def __call__(self, tokens_BT: Tokens, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        """Run the model; outputs beyond a row's length are zero. See the module for shapes."""
        played = [
            self._play(tokens_T[:length], row_S)
            for tokens_T, length, row_S in zip(tokens_BT, lengths_B, rows_BS, strict=True)
        ]
        width = played[0][0].shape[-1]
        outputs_BTV = np.zeros((*tokens_BT.shape, width), dtype=played[0][0].dtype)
        for row, (outputs_TV, _) in enumerate(played):
            outputs_BTV[row, : len(outputs_TV)] = outputs_TV
        return outputs_BTV, np.stack([row_S for _, row_S in played])

    @torch.no_grad()
    def _play(self, tokens_T: Tokens, row_S: Values) -> tuple[Values, Values]:
        parts = iter(torch.as_tensor(part, dtype=self._dtype)[None] for part in np.split(row_S, self._cuts))
        state = tuple(layer(*(next(parts) for _ in layer._fields)) for layer in self._states)
        outputs, state = self._model(torch.as_tensor(tokens_T)[None], state)
        return outputs[0].numpy(), torch.cat([part for layer in state for part in layer], dim=1)[0].numpy()
