"""Verification must fail for each way a graph can be wrong; every graph here is a real one with one real mistake."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from export.characters import characters_model
from export.door import VerificationError, export_checkpoint, write_verified
from export.metadata import contract_of
from export.parity import LIMIT, TOLERANCE, allowed_error, worst_error
from export.report import Check, Verification
from export.verify import verify
from tests.models import tiny_checkpoint

CHECKPOINT = tiny_checkpoint(layers=2)


@pytest.fixture
def model() -> onnx.ModelProto:
    return characters_model(CHECKPOINT)


def failed(model: onnx.ModelProto) -> set[str]:
    return {check.check for check in verify(model, contract_of(model), CHECKPOINT.model).failures}


def change_weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), name))


def lean_on(model: onnx.ModelProto, axis: int) -> None:
    """Let every logit feel, far below the tolerance, what lies beside it along an axis."""
    model.graph.node[-2].output[0] = "own_logits"
    assert model.graph.node[-2].op_type == "Add"
    model.graph.initializer.append(numpy_helper.from_array(np.array([axis]), "axis"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-6), "little"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["own_logits", "axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "little"], ["leaning"]),
            helper.make_node("Add", ["own_logits", "leaning"], ["logits"]),
        ]
    )


def test_our_graph_passes_every_check_and_is_invariant(model: onnx.ModelProto) -> None:
    verification = verify(model, contract_of(model), CHECKPOINT.model)

    assert verification.failures == ()
    assert verification.invariant


def test_gates_in_a_wrong_order_are_found(model: onnx.ModelProto) -> None:
    for name in ("layer1.W", "layer1.R", "layer1.B"):
        change_weight(model, name, lambda weight: np.roll(weight, 16, axis=1))

    assert "torch, random tokens: outputs" in failed(model)
    assert "torch, random tokens: states" in failed(model)


def test_a_row_with_hidden_and_cell_exchanged_is_found_though_no_shape_changes(
    model: onnx.ModelProto,
) -> None:
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]

    assert "torch, random tokens: states" in failed(model)


def test_states_that_run_on_into_the_padding_are_found(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[4] = ""

    assert failed(model) == {"torch, random tokens: states"}  # only this one has ragged rows


def test_a_bias_that_is_a_little_off_is_found(model: onnx.ModelProto) -> None:
    change_weight(model, "head.bias", lambda bias: bias + np.float32(1e-4))

    assert failed(model) == {
        f"torch, {what}: outputs" for what in ("random tokens", "text the model writes", "4096 steps")
    }


@pytest.mark.parametrize(("axis", "beside"), [(0, "batch-mates"), (1, "steps of its chunk")])
def test_a_graph_whose_results_lean_on_others_may_not_promise_invariance(
    model: onnx.ModelProto, tmp_path: Path, axis: int, beside: str
) -> None:
    lean_on(model, axis)

    exported = write_verified(model, CHECKPOINT.model, tmp_path / "leaning" / "1")

    assert exported.verification.failures == ()
    assert not exported.contract.invariant
    assert not contract_of(onnx.load(exported.file)).invariant


def test_nan_in_a_checkpoint_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.head.weight[3, 4] = torch.nan

    with pytest.raises(VerificationError, match=r"NaN or infinity: 1, allowed 0 \(head.weight_HV\)"):
        export_checkpoint(checkpoint, tmp_path / "models" / "broken")

    assert list(tmp_path.iterdir()) == []


def test_weights_so_large_that_results_overflow_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.head.weight.fill_(3e38)

    with pytest.raises(VerificationError, match="torch, random tokens: outputs: inf"):
        export_checkpoint(checkpoint, tmp_path / "overflowing")


def test_a_checkpoint_with_a_wrong_shape_is_refused_with_the_name_of_the_weight(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    cell = checkpoint.model.stack.cells[0]
    cell.bias = torch.nn.Parameter(torch.zeros(60))

    with pytest.raises(VerificationError, match=r"layer0.B: expected shape \[1, 128\], got \[1, 120\]"):
        export_checkpoint(checkpoint, tmp_path / "misfit")


def test_an_export_leaves_the_checkpoint_as_it_was(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    before = {name: weight.clone() for name, weight in checkpoint.model.state_dict().items()}
    checkpoint.model.train()

    export_checkpoint(checkpoint, tmp_path / "text")

    assert checkpoint.model.training
    assert all(torch.equal(weight, before[name]) for name, weight in checkpoint.model.state_dict().items())


def test_a_model_that_amplifies_rounding_is_held_to_what_torch_itself_reaches(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        checkpoint.model.head.weight.mul_(300)

    checks = export_checkpoint(checkpoint, tmp_path / "steep").verification.required

    assert max(check.measured for check in checks if check.check.startswith("torch, ")) > TOLERANCE


def test_a_chaotic_model_is_refused_since_no_comparison_could_prove_it_right(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(hidden=64)
    with torch.no_grad():
        checkpoint.model.stack.cells[0].weight_h.mul_(10)

    with pytest.raises(VerificationError, match=rf"allowed {LIMIT} \(rounding in torch: "):
        export_checkpoint(checkpoint, tmp_path / "chaotic")


def test_more_than_a_hundredth_is_never_allowed_and_the_tolerance_always() -> None:
    assert [allowed_error(rounding) for rounding in (0, 1e-4, 1)] == [TOLERANCE, 4e-4, 1e-2]


def test_an_error_is_relative_to_large_numbers_and_absolute_for_small_ones() -> None:
    assert worst_error(np.array([1e-3, 200.0]), np.array([0.0, 100.0])) == 1.0
    assert worst_error(np.array([1e-3]), np.array([0.0])) == 1e-3
    assert worst_error(np.array([np.nan]), np.array([np.nan])) == np.inf


def test_a_measure_that_is_no_number_never_passes() -> None:
    assert not Check("error", float("nan"), 1.0).passed
    assert not Check("error", float("inf"), 1.0).passed


def test_what_was_not_compared_is_not_invariant() -> None:
    assert not Verification(required=(), invariance=()).invariant
