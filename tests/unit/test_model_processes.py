"""Several processes: the same training as in one, and one that speaks."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from cli import main as command
from model.checkpoint import part, read_checkpoint
from model.learner import Learner
from model.precision import fabric_precision
from model.processes import Processes, ProcessesError
from model.training import Training
from tests.two_processes import EVERYTHING, PLAIN, corpus, finish, recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
task = "characters"
[data]
source = "text.txt"
[model]
embedding = 4
hidden = 8
layers = 1
[training]
updates = 6
streams = 2
steps = 5
learning_rate = 1e-2
evaluate_every = 3
"""


@dataclass(frozen=True)
class Together:
    """What two processes left behind."""

    folder: Path
    out: list[str]
    err: list[str]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    (folder / "small.toml").write_text(RECIPE)
    (folder / "long.toml").write_text(RECIPE.replace("updates = 6", "updates = 1_000_000"))
    (folder / "text.txt").write_text("row, row, row your boat " * 10)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.two_processes", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Together(folder, done.stdout.splitlines(), done.stderr.splitlines())


def test_both_processes_have_the_same_weights_and_gradients(together: Together) -> None:
    first, second = (load_file(together.folder / f"process{rank}.safetensors") for rank in (0, 1))
    assert_close(first, second, rtol=0, atol=0)
    assert part(first, "gradient.")["head.bias"].abs().max() > 0


def test_two_processes_train_as_one_does_with_all_streams(together: Together, tmp_path: Path) -> None:
    alone = finish(Training(recipe(PLAIN), corpus(), tmp_path))
    traces = load_file(together.folder / "process0.safetensors")
    for name, parameter in alone._learner.model.named_parameters():
        assert parameter.grad is not None
        assert_close(traces[f"weight.{name}"], parameter.detach(), rtol=1e-4, atol=1e-6)
        assert_close(traces[f"gradient.{name}"], parameter.grad, rtol=1e-3, atol=1e-6)
    (found, tensors), (expected, others) = (
        read_checkpoint(run / "last.safetensors") for run in (together.folder / "plain", tmp_path)
    )
    state = part(tensors, "state.")
    assert state["layer0.hidden"].shape == (4, 8)  # of all streams
    assert_close(state, part(others, "state."), rtol=1e-4, atol=1e-6)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-5)


def test_two_processes_go_on_bit_for_bit_with_all_techniques(together: Together) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        (_, found), (_, expected) = (
            read_checkpoint(together.folder / run / name) for run in ("stopped", "unbroken")
        )
        assert_close(found, expected, rtol=0, atol=0)
    assert found["rng.cpu"].shape[0] == 2
    assert not found["rng.cpu"][0].equal(found["rng.cpu"][1])  # dropout of their own


def test_one_process_goes_on_where_two_stopped(together: Together, tmp_path: Path) -> None:
    shutil.copytree(together.folder / "half", tmp_path / "half")
    resumed = Training(recipe(PLAIN), corpus(), tmp_path / "half", resume=True)
    assert resumed.progress.updates == 7
    finish(resumed)
    weights = part(load_file(together.folder / "process0.safetensors"), "weight.")
    assert_close(dict(resumed._learner.model.state_dict()), weights, rtol=1e-4, atol=1e-6)


def test_only_the_first_process_writes(together: Together) -> None:
    kept = {"best.safetensors", "last.safetensors", "history.jsonl"}
    for run in ("plain", "unbroken", "stopped"):
        assert {path.name for path in (together.folder / run).iterdir()} == kept
    assert len((together.folder / "plain" / "history.jsonl").read_text().splitlines()) == 3


def test_only_the_first_process_prints(together: Together) -> None:
    (line,) = together.out
    assert line.startswith("runs/small: ")
    assert line.endswith("bits per held-out character after 6 updates")
    summary, *rest = together.err
    assert ", 2 processes; " in summary
    assert [line.split(" updates")[0] for line in rest[:2]] == ["3", "6"]
    assert sum("parameters" in line for line in rest) == 1
    assert len({line for line in rest if "updates:" in line}) == sum("updates:" in line for line in rest)


def test_a_process_that_is_asked_to_stop_stops_all_at_the_same_update(together: Together) -> None:
    document, _ = read_checkpoint(together.folder / "runs" / "long" / "last.safetensors")
    assert document.progress is not None
    made = document.progress.updates
    assert together.err[-1] == f"stopped after {made} updates; --resume goes on from there"
    assert made < 1_000_000


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_mistake_is_named_by_the_first_process_of_a_machine(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "here")
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert command.main(["train", "gone"]) == 1
    assert capsys.readouterr().err.count("\n") == lines


def test_streams_that_the_processes_cannot_share_evenly_are_refused() -> None:
    processes = Processes(fabric_precision("fp32"))
    processes.count = 3
    line = "3 processes of 2 parts cannot share 4 streams evenly: expected a multiple of 6"
    with pytest.raises(ProcessesError, match=line):
        Learner(recipe(EVERYTHING), corpus(), processes)
