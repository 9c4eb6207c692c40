"""`carousel diagnose`: what it writes, what stands on the page, and what it says of mistakes."""

import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from cli.main import main
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.diagnostics import fixed_points
from model.diagnostics.chapter import Chapter
from model.diagnostics.course import gate_means, read_course
from model.diagnostics.page import page
from model.diagnostics.report import write_report
from model.diagnostics.subject import held_out
from model.recipe import Recipe
from model.tasks.tasks import load_data, task_of

ADDING = """
task = "adding"
[model]
hidden = 6
layers = 2
cell = {cell}
[training]
updates = 20
streams = 8
steps = 24
learning_rate = 1e-2
evaluate_every = 10
"""
GATES = ("input", "forget", "output")
CHAPTERS = [
    "learning",
    "evolution",
    "gates",
    "saturation",
    "half_lives",
    "correlation",
    "entropy",
    "gradient_norms",
    "gradient_flow",
    "information",
    "capacity",
    "fixed_points",
]


def trained(folder: Path, cell: str = '"lstm"') -> Path:
    """A model that learned a little."""
    recipe = folder / "recipe.toml"
    folder.mkdir(parents=True, exist_ok=True)
    recipe.write_text(ADDING.format(cell=cell))
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all."""
    return trained(tmp_path_factory.mktemp("adding"))


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    """Its report."""
    assert main(["diagnose", str(run), "--out", str(run / "report")]) == 0
    return run / "report"


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are laid out but not painted, and fixed points are not sought for long."""
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write("<svg/>"))
    monkeypatch.setattr(fixed_points, "_ITERATIONS", 30)


class Links(HTMLParser):
    """Everything on a page that points somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: list[str] = []
        self.images = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found += [value for name in ("src", "href") if (value := named.get(name))]
        self.anchors += [value] if (value := named.get("id")) else []
        if tag == "img":
            self.images += 1
            assert named.get("alt")


def test_the_page_has_every_chapter_and_needs_no_network(report: Path) -> None:
    links = Links((report / "index.html").read_text())
    assert links.anchors == CHAPTERS
    assert links.images == len(CHAPTERS)
    inside = [link for link in links.found if link.startswith("#")]
    assert inside == [f"#{name}" for name in CHAPTERS]
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in links.found)


def test_the_numbers_are_json_and_say_what_the_page_draws(report: Path) -> None:
    found = json.loads((report / "report.json").read_text(), parse_constant=pytest.fail)
    assert set(found) == {"title", "facts", *CHAPTERS}
    assert set(found["gates"]["layer1"]) == set(GATES)
    assert len(found["gradient_flow"]["layer0"]["total"]) == 24
    assert found["gradient_flow"]["layer0"]["total"][0] == 1
    assert found["information"]["lags"] == [1, 2, 4, 8]
    assert found["capacity"]["layer0"]["capacity"] <= found["capacity"]["layer0"]["units"] + 1
    assert found["fixed_points"]["layer0"][0]["closed_form_off"] < 1e-6
    assert found["evolution"]["updates"] == [10, 20]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("cell", ['"gru"', '"rnn"'])
def test_a_cell_has_the_chapters_that_it_can_have(tmp_path: Path, cell: str) -> None:
    run = trained(tmp_path, cell)
    assert main(["diagnose", str(run), "--out", str(tmp_path / "report")]) == 0
    anchors = Links((tmp_path / "report" / "index.html").read_text()).anchors
    missing = set(CHAPTERS) - set(anchors)
    without_gates = {"gates", "saturation", "half_lives", "correlation", "entropy"}
    assert missing == {'"gru"': {"correlation", "entropy"}, '"rnn"': without_gates}.get(cell, set())


@pytest.mark.usefixtures("_quick")
def test_another_model_can_be_drawn_beside(run: Path, tmp_path: Path) -> None:
    other = trained(tmp_path, '"rnn"')
    assert main(["diagnose", str(run), "--beside", str(other), "--out", str(tmp_path / "report")]) == 0
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["gradient_flow"]["beside"]["name"] == str(other)
    alone = json.loads((run / "report" / "report.json").read_text())
    assert found["gradient_flow"]["beside"]["total"] != alone["gradient_flow"]["beside"]["total"]


@pytest.mark.usefixtures("_quick")
def test_a_text_is_read_where_the_model_did_not_learn_and_another_one_may_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 120)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'task = "characters"\n[data]\nsource = "{text}"\n[model]\nembedding = 5\nhidden = 8\nlayers = 1\n'
        "[training]\nupdates = 5\nstreams = 4\nsteps = 20\nlearning_rate = 1e-2\nevaluate_every = 5\n"
    )
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    other = tmp_path / "other"
    other.write_text("lorem ipsum dolor sit amet, consetetur sadipscing elitr. " * 100)
    told = []
    for more in ([], ["--data", str(other)]):
        assert main(["diagnose", str(tmp_path / "run"), "--out", str(tmp_path / "report"), *more]) == 0
        told.append(json.loads((tmp_path / "report" / "report.json").read_text())["facts"]["run on"])
    assert "32 held-out passages of 128 symbols" in told[0]
    assert told[0].endswith("data as in training")
    assert "other data than in training" in told[1]

    other.write_text("too short to hold much out of it")
    assert main(["diagnose", str(tmp_path / "run"), "--out", str(tmp_path), "--data", str(other)]) == 1
    assert "expected a held-out part of 193 symbols or more, came 4" in capsys.readouterr().err


def test_a_task_that_draws_its_data_takes_no_other(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(run), "--data", "a-file"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("carousel diagnose: ")


def test_what_the_gates_do_is_written_down_at_every_evaluation(run: Path) -> None:
    course = read_course(run)
    assert [line["updates"] for line in course] == [10, 20]
    for line in course:
        gates = {key: value for key, value in line.items() if key.startswith("gates.")}
        assert set(gates) == {f"gates.layer{k}.{name}" for k in (0, 1) for name in GATES}
        assert all(0 < value < 1 for value in gates.values())


@pytest.mark.parametrize("task", ["adding", "copy"])
def test_the_means_are_those_of_the_gates_and_looking_changes_nothing(task: str) -> None:
    sizes: dict[str, Any] = {"hidden": 3, "layers": 1}
    if task == "copy":
        sizes |= {"embedding": 2, "dropout": {"embedding": 0.5, "output": 0.5}}
    plan = {"updates": 1, "streams": 4, "steps": 30, "learning_rate": 0.1, "evaluate_every": 1}
    recipe = Recipe.from_document({"task": task, "model": sizes, "training": plan})
    made = task_of(recipe, load_data(recipe))
    model = made.new_model().train()
    before = torch.get_rng_state()
    assert set(gate_means(model, made.batch(0))) == {f"gates.layer0.{name}" for name in GATES}
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)  # nothing was dropped
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert gate_means(model, made.batch(0)) == {f"gates.layer0.{name}": 0.5 for name in GATES}


def test_held_out_text_is_read_in_the_symbols_that_the_model_learned() -> None:
    corpus = Corpus(Vocabulary(("?", "a", "b", "c")), torch.tensor([1]), torch.tensor([1, 2, 3, 0]), "")
    learned = SimpleNamespace(vocabulary=("?", "b", "x", "a"), unknown=0)
    assert held_out(learned, corpus).tolist() == [3, 1, 0, 0]


@pytest.mark.usefixtures("_quick")
def test_a_training_without_a_record_says_so(run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "best.safetensors"
    lone.write_bytes((run / "best.safetensors").read_bytes())
    assert main(["diagnose", str(lone), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "index.html").read_text()
    assert text.count("Not recorded") == 2
    (tmp_path / "history.jsonl").write_text(
        '{"training_mse": 1.0, "validation_mse": 1.0, "updates": 5}\n{"upd'
    )
    assert len(read_course(tmp_path)) == 1


def test_what_json_cannot_say_is_null_and_what_html_would_obey_is_shown(tmp_path: Path) -> None:
    numbers = {"long": [float("inf"), 1.0], "unknown": float("nan")}
    chapter = Chapter("one", "<b>", "a & b", numbers, table=(("<i>",), ("x",)), how="</p>")
    write_report(tmp_path, "<script>", {"a": "<"}, [chapter])
    assert json.loads((tmp_path / "report.json").read_text())["one"] == {"long": [None, 1.0], "unknown": None}
    shown = page("<script>", {"a": "<"}, [chapter])
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "&lt;i&gt;" in shown
