"""`carousel train`: what it prints, where it puts things, and how it ends."""

import errno
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cli import main as command
from model.checkpoint import load_checkpoint, read_checkpoint
from model.data.corpus import load_corpus
from model.recipe import read_recipe
from model.training import Training

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


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE)
    Path("text.txt").write_text("row, row, row your boat " * 10)


def train(*arguments: str) -> int:
    return command.main(["train", *arguments])


def test_a_training_ends_with_its_figure_and_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("small.toml") == 0
    out, err = capsys.readouterr()
    found = load_checkpoint(Path("runs/small"))
    assert (
        out
        == f"runs/small: {found.metrics['bits_per_character']:.4f} bits per held-out character after 6 updates\n"
    )
    progress = err.splitlines()
    assert "parameters" in progress[0]
    assert [line.split(" updates")[0] for line in progress[1:]] == ["3", "6"]


def test_options_choose_text_and_folder() -> None:
    Path("other.txt").write_text("gently down the stream " * 10)
    assert train("small.toml", "--data", "other.txt", "--out", "elsewhere", "--threads", "1") == 0
    found = load_checkpoint(Path("elsewhere"))
    assert found.recipe["data"]["source"] == "other.txt"
    assert "g" in found.vocabulary


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gone"], "no recipe gone"),
        (["small.toml", "--data", "gone.txt"], "no text gone.txt"),
        (["small.toml", "--resume"], "runs/small/last.safetensors: no such checkpoint"),
        (["small.toml", "--data", "small.toml", "--out", "text.txt"], "text.txt: File exists"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*arguments) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"carousel train: {line}")


def test_a_second_training_does_not_overwrite_the_first_but_can_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("small.toml") == 0
    capsys.readouterr()
    assert train("small.toml") == 1
    assert "go on with --resume, or give another --out" in capsys.readouterr().err
    assert train("small.toml", "--resume") == 0


def test_threads_are_counted_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        train("small.toml", "--threads", "0")
    assert left.value.code == 2
    assert "expected 1 or more, came 0" in capsys.readouterr().err


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_where_the_training_is_and_ends_it(number: signal.Signals) -> None:
    Path("long.toml").write_text(RECIPE.replace("updates = 6", "updates = 1_000_000"))
    command_line = [sys.executable, "-m", "cli", "train", "long.toml", "--threads", "1"]
    with subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("3 updates"):
            assert process.poll() is None
        process.send_signal(number)
        *_, last = process.stderr.read().splitlines()
    assert process.returncode == 128 + number
    document, tensors = read_checkpoint(Path("runs/long/last.safetensors"))
    assert document.progress is not None
    made = document.progress.updates
    assert last == f"stopped after {made} updates; --resume goes on from there"
    assert_close(tensors, after_updates(made), rtol=0, atol=0)


def after_updates(made: int) -> dict[str, Tensor]:
    """What a training that nobody disturbs has after so many updates."""
    recipe = read_recipe(Path("long.toml"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    training = Training(recipe, load_corpus(recipe.data), Path("undisturbed"))
    assert len(list(islice(training.updates(), made))) == made
    training.save()
    torch.set_num_threads(threads)
    return read_checkpoint(Path("undisturbed/last.safetensors"))[1]


def test_what_a_full_disk_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert train("small.toml") == 1
    line = "carousel train: runs/small/history.jsonl: No space left on device"
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_a_training_that_diverges_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wild.toml").write_text(
        RECIPE.replace("1e-2", "1e38").replace("[training]", "[training]\nwarm_up = 0.0")
    )
    assert train("wild.toml") == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("carousel train: update 1: loss nan, gradient nan; first not finite: the weight ")


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys; from cli import main\ntry: main.main(['train', '--help'])\nfinally: print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("usage: carousel train")
    assert found.stdout.endswith("False\n")
