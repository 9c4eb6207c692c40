"""What is measured on the two graphs of an encoder-decoder: each against PyTorch, and against itself in other batches.

Axes: T time, S the planes side by side.
"""

import copy

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.contract import Contract
from export.encoder_decoder import Pair
from export.invariance import drawn, invariance_checks
from export.metadata import contract_of
from export.parity import OWN_TEXTS, SHAPES, Case, distances, own_text_case, table
from export.report import Check, Verification
from export.runtime import Inputs, Lengths, OnnxStep, Values, one_torch_thread, row_by_row
from export.structure import structure_checks
from export.whole_checks import whole_invariance, whole_parity
from export.whole_runs import Children, OnnxWhole
from model.attention import Memory

_SEED = 0


class TorchPair:
    """Both halves in PyTorch, one row at a time and without padding."""

    def __init__(self, pair: Pair, dtype: torch.dtype) -> None:
        self._model = copy.deepcopy(pair.model).to("cpu", dtype).eval()
        self._states = self._model.decoder.initial_state(1)
        self._sizes = [part.shape[1] for state in self._states for part in state]
        self._max_source, self._dtype = pair.max_source, dtype

    @torch.no_grad()
    def sequence(self, source_T: Inputs) -> Values:
        """The planes that a source gives `[S]`."""
        state, memory = self._model.prime(torch.as_tensor(source_T)[None])
        parts = [part for layer in state for part in layer]
        if memory is not None:
            places_1Mw = torch.cat([memory.outputs_BMW, memory.real_BM.unsqueeze(2)], dim=2)
            missing = self._max_source - places_1Mw.shape[1]
            parts.append(torch.nn.functional.pad(places_1Mw, (0, 0, 0, missing)).flatten(1))
        return torch.cat(parts, dim=1)[0].numpy()

    def forest(self, inputs_N: Inputs, children_NK: Children) -> Values:
        """Nobody has nodes here."""
        raise NotImplementedError

    def step(self, tokens_BT: Inputs, lengths_B: Lengths, rows_BS: Values) -> tuple[Values, Values]:
        """Run the decoder as `export.runtime` says."""
        return row_by_row(self._play, tokens_BT, lengths_B, rows_BS)

    @torch.no_grad()
    def _play(self, tokens_T: Inputs, row_S: Values) -> tuple[Values, Values]:
        cut = sum(self._sizes)
        row_1S = torch.as_tensor(row_S, dtype=self._dtype)[None]
        parts = iter(torch.split(row_1S[:, :cut], self._sizes, dim=1))
        state = tuple(type(layer)(*(next(parts) for _ in layer)) for layer in self._states)
        memory = None if self._model.attention is None else self._memory(row_1S[:, cut:])
        logits, state = self._model.decode(torch.as_tensor(tokens_T)[None], state, memory)
        after = [part for layer in state for part in layer]
        return logits[0].numpy(), torch.cat([*after, row_1S[:, cut:]], dim=1)[0].numpy()

    def _memory(self, plane_1n: Tensor) -> Memory:
        places_1Mw = plane_1n.view(1, self._max_source, -1)
        return Memory(places_1Mw[..., :-1], places_1Mw[..., -1])


def verify_pair(
    decoder: onnx.ModelProto, priming: onnx.ModelProto, pair: Pair
) -> tuple[Verification, Verification]:
    """Measure the step graph and the priming graph: alone, against the PyTorch model, and against themselves."""
    contract, primer = contract_of(decoder), contract_of(priming)
    structure, primer_structure = structure_checks(decoder, contract), structure_checks(priming, primer)
    if not all(check.passed for check in (*structure, *primer_structure)):
        return Verification(structure, ()), Verification(primer_structure, ())
    rng = np.random.default_rng(_SEED)
    run, prime = OnnxStep(decoder, contract), OnnxWhole(priming, primer)
    single, double = (TorchPair(pair, dtype) for dtype in (torch.float32, torch.float64))
    parity = _decoder_parity(run, prime, (single, double), contract, primer, rng)
    step = Verification((*structure, *parity), invariance_checks(run, contract, rng))
    told = whole_parity(prime, single, double, primer, rng)
    return step, Verification((*primer_structure, *told), whole_invariance(prime, primer, rng))


def _decoder_parity(
    run: OnnxStep,
    prime: OnnxWhole,
    sides: tuple[TorchPair, TorchPair],
    contract: Contract,
    primer: Contract,
    rng: np.random.Generator,
) -> tuple[Check, ...]:
    """Start from sources of all lengths: random tokens, what the model writes, and the longest run."""

    def starts(batch: int) -> NDArray[np.float32]:
        lengths = rng.integers(1, primer.max_steps + 1, batch)
        return np.stack([prime.sequence(drawn(primer.inputs[0], int(n), rng)) for n in lengths])

    single, double = sides
    port, cases = contract.inputs[0], []
    for batch, steps in SHAPES:
        tokens_BT = drawn(port, batch * steps, rng).reshape(batch, steps)
        lengths_B = rng.integers(1, steps + 1, batch, dtype=np.int32)
        lengths_B[0] = steps
        cases.append(Case(tokens_BT, lengths_B, starts(batch)))
    long = drawn(port, contract.max_steps, rng)[None]
    with one_torch_thread():
        written = own_text_case(single.step, contract, starts(OWN_TEXTS), rng)
        whole = Case(long, np.array([contract.max_steps], np.int32), starts(1))
        of_kinds = {
            "random tokens": cases,
            "what the model writes": [written],
            f"{contract.max_steps} steps": [whole],
        }
        return table(
            {name: distances(run, single.step, double.step, these) for name, these in of_kinds.items()}
        )
