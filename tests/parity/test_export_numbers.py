"""Models of numbers: the graph computes what PyTorch computed, in the numbers of the data, and through gRPC as well."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from carousel.client import AsyncClient
from carousel.contract import Contract
from export.door import Exported, VerificationError, export_checkpoint, write_verified
from export.errors import ExportError
from export.file import read_model
from export.numbers import numbers_model
from export.options import Options
from export.packing import packed
from export.recorded import not_recorded
from export.repository import new_version
from export.runtime import OnnxStep
from export.step import stepping
from model.checkpoint import Checkpoint
from model.recipe import Recipe
from model.tasks.task import TaskModel
from model.tasks.tasks import load_data, task_of
from service.server import start_server
from service.settings import Settings
from tests.models import LINEAGE

SINGLE = {"target": "cuda", "single_step": True}
DATA = {"source": "waves", "values": ["load"], "past": ["temperature"], "known": ["event"], "horizon": 4}


def checkpoint(task: str = "forecast", **data: Any) -> Checkpoint:
    """A model with the scales of its data and random weights."""
    sizes = {"hidden": 16, "layers": 2} | ({} if task in ("forecast", "adding") else {"embedding": 4})
    recipe = Recipe.from_document(
        {
            "task": task,
            "data": DATA | data if task == "forecast" else {},
            "model": sizes,
            "training": {"updates": 1, "streams": 1, "steps": 25, "learning_rate": 0.1, "evaluate_every": 1},
        }
    )
    found = load_data(recipe)
    torch.manual_seed(0)
    return Checkpoint(
        model=task_of(recipe, found).new_model().eval(),
        recipe=recipe.model_dump(),
        vocabulary=found.names,
        unknown=0,
        lineage=LINEAGE,
        data_sha256=found.sha256,
        metrics={},
        revision="test",
        created="2026-01-01T00:00:00Z",
        task=task,
    )


def exported(path: Path, made: Checkpoint, **options: Any) -> tuple[Exported, OnnxStep]:
    found = export_checkpoint(made, path / "model", 1, Options(**options))
    return found, OnnxStep(read_model(found.file).model, found.contract)


@pytest.mark.parametrize("data", [{}, {"recursive": True}, {"changes": True}, {"past": [], "known": []}])
def test_every_kind_of_forecast_passes_the_door(data: dict[str, Any], tmp_path: Path) -> None:
    found, _ = exported(tmp_path, checkpoint(**data))
    assert found.contract.invariant


@pytest.mark.parametrize("task", ["adding", "copy", "counting"])
def test_every_drawn_task_passes_the_door(task: str, tmp_path: Path) -> None:
    found, _ = exported(tmp_path, checkpoint(task))
    assert (found.contract.task, found.contract.invariant) == (task, True)


@pytest.mark.parametrize("options", [{"target": "cuda"}, {"observe": True}, SINGLE])
def test_a_forecast_has_the_forms_that_other_models_have(options: dict[str, Any], tmp_path: Path) -> None:
    assert not exported(tmp_path, checkpoint(changes=True), **options)[0].verification.failures


@pytest.mark.parametrize("data", [{}, {"recursive": True}, {"recursive": True, "changes": True, "past": []}])
def test_one_step_of_every_kind_of_forecast_can_be_recorded(data: dict[str, Any]) -> None:
    """Ports, and parts of the state, of different sizes."""
    assert not_recorded(numbers_model(checkpoint(**data), Options(**SINGLE))) == []


def test_ports_are_named_after_the_columns(tmp_path: Path) -> None:
    contract: Contract = exported(tmp_path, checkpoint())[0].contract
    ports = {
        port.name: (port.shape, port.vocabulary, port.feeds) for port in (*contract.inputs, *contract.outputs)
    }
    assert ports == {
        "values": ((1,), ("load",), None),
        "past": ((1,), ("temperature",), None),
        "known": ((4, 1), ("event",), None),
        "forecast": ((4, 1), ("load",), None),
    }


def test_whoever_goes_on_from_its_own_forecasts_says_which_input_they_feed(tmp_path: Path) -> None:
    contract = exported(tmp_path, checkpoint(recursive=True))[0].contract
    assert {port.name: port.feeds for port in contract.outputs} == {
        "forecast": "values",
        "past_forecast": "past",
    }
    assert contract.inputs[2].shape == (1,)


def test_numbers_go_in_and_come_out_as_they_are_in_the_data(tmp_path: Path) -> None:
    made = checkpoint(changes=True)
    found, run = exported(tmp_path, made)
    rng, steps = np.random.default_rng(0), 9
    arrays = {
        "values": rng.uniform(8, 12, (1, steps, 1)).astype(np.float32),
        "past": rng.uniform(10, 20, (1, steps, 1)).astype(np.float32),
        "known": rng.integers(2, size=(1, steps, 4, 1)).astype(np.float32),
    }
    state = np.zeros((1, found.contract.state_size), np.float32)
    outputs, _ = run(packed(found.contract.inputs, arrays), np.array([steps], np.int32), state)
    flat = np.concatenate([arrays["values"], arrays["past"], arrays["known"][..., 0]], axis=2)
    expected, _ = made.model(torch.from_numpy(flat), made.model.initial_state(1))
    assert_allclose(outputs, expected.detach().numpy(), rtol=1e-5)
    assert 7 < outputs.mean() < 13  # loads, not standard deviations


def test_less_than_float32_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="task forecast: expected --precision fp32"):
        exported(tmp_path, checkpoint(), precision="int8-weights")


def test_a_graph_whose_scale_was_lost_is_not_written(tmp_path: Path) -> None:
    made = checkpoint()
    graph = numbers_model(made)
    made.model.scale_out.mul_(1.01)
    with pytest.raises(VerificationError, match="random numbers: outputs"):
        write_verified(graph, made.model, new_version(tmp_path / "model", 1))  # type: ignore[arg-type]


def test_a_model_without_steps_is_no_step_graph() -> None:
    with pytest.raises(ExportError, match="expected a model that advances in steps"):
        stepping(replace(checkpoint(), model=TaskModel()))


async def test_a_forecast_through_the_service_is_what_torch_computes_however_it_is_cut(
    tmp_path: Path,
) -> None:
    made = checkpoint(recursive=True, changes=True)
    export_checkpoint(made, tmp_path / "waves", 1)
    rows = np.random.default_rng(0).uniform(8, 12, (20, 3)).astype(np.float32)
    with torch.no_grad():
        expected, _ = made.model(torch.from_numpy(rows)[None], made.model.initial_state(1))
    server = await start_server(Settings.load({"models": tmp_path, "grpc_port": 0, "http_port": 0}))
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session = await client.open("waves")
        answers = []
        for part in np.split(rows, [1, 2, 13]):
            chunk = {name: part[:, k : k + 1] for k, name in enumerate(("values", "past", "known"))}
            answers.append(await session.step(chunk))
    await server.stop()
    for k, name in enumerate(("forecast", "past_forecast")):
        found = np.concatenate([answer[name] for answer in answers])[:, 0]
        assert_allclose(found, expected[0, :, k].numpy(), rtol=1e-5)
