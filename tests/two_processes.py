"""What two processes do together; `torchrun` starts this, see `test_model_processes.py`."""

import os
import signal
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from carousel.errors import CarouselError
from cli import main as command
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.processes import Processes
from model.recipe import Recipe
from model.training import Training

TEXT = "a rose is a rose is a rose. " * 10
PLAIN: dict[str, Any] = {
    "updates": 12,
    "streams": 4,
    "steps": 5,
    "learning_rate": 0.01,
    "evaluate_every": 4,
    "clip": 1e9,
}
EVERYTHING = PLAIN | {"stride": 2, "accumulate": 2, "schedule": "plateau", "average": "ema"}


def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:60]), sha256="of the text")


def recipe(training: dict[str, Any], dropout: float = 0.0) -> Recipe:
    sizes = {"embedding": 4, "hidden": 8, "layers": 2, "dropout": dropout}
    document = {"task": "characters", "data": {"source": "none"}, "model": sizes, "training": training}
    return Recipe.from_document(document)


def finish(training: Training) -> Training:
    for _ in training.updates():
        pass
    return training


def stop(training: Training, made: int) -> None:
    assert len(list(islice(training.updates(), made))) == made
    training.save()


def leave_traces(training: Training, folder: Path) -> None:
    """The weights and the last gradient, as this process has them."""
    learner = training._learner
    traces = {}
    for name, parameter in learner.model.named_parameters():
        assert parameter.grad is not None
        traces |= {f"weight.{name}": parameter.detach(), f"gradient.{name}": parameter.grad}
    save_file(traces, folder / f"process{learner.processes.rank}.safetensors")


def speak(processes: Processes) -> None:
    """What they agree on, and that a mistake of the first is one of all."""
    assert processes.largest(10 * processes.rank) == 10
    assert processes.mean(float(processes.rank)) == 0.5
    assert processes.by_first(lambda: processes.rank) == 0

    def mistake() -> None:
        raise CarouselError("a mistake")

    with pytest.raises(CarouselError, match="a mistake"):
        processes.by_first(mistake)


def train_by_command(folder: Path) -> None:
    """A whole training, then one that the second process alone is asked to stop."""
    os.chdir(folder)
    assert command.main(["train", "small.toml"]) == 0
    if os.environ["RANK"] == "1":
        threading.Thread(target=ask_to_stop, daemon=True).start()
    assert command.main(["train", "long.toml"]) == 128 + signal.SIGTERM


def ask_to_stop() -> None:
    while not Path("runs/long/last.safetensors").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path) -> None:
    train_by_command(folder)
    plain = finish(Training(recipe(PLAIN), corpus(), folder / "plain"))
    leave_traces(plain, folder)
    speak(plain._learner.processes)
    stop(Training(recipe(PLAIN), corpus(), folder / "half"), 7)
    everything = recipe(EVERYTHING, dropout=0.4)
    finish(Training(everything, corpus(), folder / "unbroken"))
    stop(Training(everything, corpus(), folder / "stopped"), 7)
    finish(Training(everything, corpus(), folder / "stopped", resume=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
