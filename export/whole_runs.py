"""Both sides of the comparison for whole-input graphs: ONNX Runtime and PyTorch, one sequence or one forest a call.

A call takes the inputs of its steps or nodes `[n, *shape]`, and the children `[N, K]` where there are nodes; it gives
the output `[n, *shape]`, or `[*shape]` where that has no time axis; of a priming graph all planes `[S]` side by side.
"""

import copy

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.contract import Contract
from export.runtime import Inputs, Lengths, Values, open_session
from export.whole import Whole
from model.bidirectional import Bidirectional
from model.cells.child_sum import ChildSumLSTM
from model.tree import Forest, over_forest

Children = NDArray[np.int32]


class OnnxWhole:
    """A whole-input graph on the CPU."""

    def __init__(self, model: onnx.ModelProto, contract: Contract) -> None:
        self._session, self._contract = open_session(model), contract
        self.each = "time" in contract.outputs[0].axes
        """Whether every step has an output, or a sequence one."""

    def sequences(self, inputs_BT: Inputs, lengths_B: Lengths) -> Values:
        """Outputs of a padded batch `[B, T, ...]`."""
        return self._run({self._contract.inputs[0].name: inputs_BT, self._contract.lengths: lengths_B})

    def sequence(self, inputs_T: Inputs) -> Values:
        """Output of one sequence alone."""
        whole: Values = self.sequences(inputs_T[None], np.array([len(inputs_T)], np.int32))[0]
        return whole

    def forest(self, inputs_N: Inputs, children_NK: Children) -> Values:
        """Outputs of all nodes."""
        names = [port.name for port in self._contract.inputs]
        return self._run(dict(zip(names, (inputs_N, children_NK), strict=True)))

    def _run(self, feeds: dict[str, Inputs | Lengths]) -> Values:
        outputs = self._session.run([port.name for port in self._contract.outputs], feeds)
        found: Values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)
        return found


class TorchWhole:
    """The network in PyTorch; nothing is shared with the graph, and nothing is padded."""

    def __init__(self, whole: Whole, dtype: torch.dtype) -> None:
        self._before, self._network, self._head = (
            copy.deepcopy(part).to("cpu", dtype).eval() for part in (whole.before, whole.network, whole.head)
        )
        self._each, self._dtype = "time" in whole.output.axes, dtype

    @torch.no_grad()
    def sequence(self, inputs_T: Inputs) -> Values:
        """Output of one sequence."""
        assert isinstance(self._network, Bidirectional)
        outputs_T1W, states = self._network(self._read(inputs_T).unsqueeze(1))
        start, end = states[-1]
        read = outputs_T1W[:, 0] if self._each else torch.cat([start.hidden, end.hidden], dim=1)[0]
        found: Values = self._head(read).numpy()
        return found

    @torch.no_grad()
    def forest(self, inputs_N: Inputs, children_NK: Children) -> Values:
        """Outputs of all nodes."""
        assert isinstance(self._network, ChildSumLSTM)
        forest = Forest(torch.as_tensor(children_NK.astype(np.int64)))
        found: Values = self._head(over_forest(self._network, self._read(inputs_N), forest).hidden).numpy()
        return found

    def _read(self, inputs: Inputs) -> Tensor:
        given = torch.as_tensor(inputs)
        read: Tensor = self._before(given.to(self._dtype) if given.is_floating_point() else given)
        return read
