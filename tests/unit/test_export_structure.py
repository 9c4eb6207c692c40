from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.characters import characters_model
from export.structure import broken_weights, structure_problems
from tests.models import tiny_checkpoint

HIDDEN = 16


@pytest.fixture
def model() -> onnx.ModelProto:
    return characters_model(tiny_checkpoint(hidden=HIDDEN, layers=2))


def change_weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), name))


def test_our_graph_has_no_problems(model: onnx.ModelProto) -> None:
    assert structure_problems(model) == []
    assert broken_weights(model) == []


def test_opset_and_ir_are_those_that_every_runtime_loads_and_nothing_else_is_imported(
    model: onnx.ModelProto,
) -> None:
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


def test_batch_and_time_have_names_and_all_other_dimensions_numbers(model: onnx.ModelProto) -> None:
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }

    assert shapes == {
        "tokens": ["B", "T"],
        "lengths": ["B"],
        "state": ["B", 4 * HIDDEN],
        "logits": ["B", "T", 29],
        "state_out": ["B", 4 * HIDDEN],
    }


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layer0.W", lambda weight: weight[:, :, :-1]),
        ("layer0.R", lambda weight: weight[:, :, :-1]),
        ("layer1.R", lambda weight: weight[:, :-4]),
        ("layer1.W", lambda weight: np.concatenate([weight, weight])),
        ("layer1.B", lambda weight: weight[:, : 4 * HIDDEN]),
    ],
)
def test_a_recurrent_weight_of_a_wrong_shape_is_found_though_onnx_passes_it(
    model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    change_weight(model, name, change)

    onnx.checker.check_model(model, full_check=True)  # the reason why we look ourselves
    assert [problem.split(":")[0] for problem in structure_problems(model)] == [name]


def test_a_state_that_is_cut_wrongly_is_found(model: onnx.ModelProto) -> None:
    change_weight(model, "row.sizes", lambda sizes: np.array([HIDDEN - 1, HIDDEN + 1, HIDDEN, HIDDEN]))

    assert structure_problems(model) != []


@pytest.mark.parametrize("name", ["head.weight_HV", "head.bias", "embedding"])
def test_a_weight_outside_the_recurrence_of_a_wrong_shape_is_found(model: onnx.ModelProto, name: str) -> None:
    change_weight(model, name, lambda weight: weight[..., :-1])

    assert len(structure_problems(model)) == 1


@pytest.mark.parametrize(("ir_version", "opset"), [(11, 20), (10, 22), (10, 17)])
def test_other_versions_are_refused(model: onnx.ModelProto, ir_version: int, opset: int) -> None:
    model.ir_version, model.opset_import[0].version = ir_version, opset

    assert "expected IR 10 and opset 20" in structure_problems(model)[0]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(model: onnx.ModelProto, poison: float) -> None:
    def spoil(weight: np.ndarray) -> np.ndarray:
        weight.flat[-1] = poison
        return weight

    change_weight(model, "layer1.R", spoil)
    change_weight(model, "head.bias", spoil)

    assert broken_weights(model) == ["layer1.R", "head.bias"]
