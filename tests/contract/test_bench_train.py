"""`carousel bench train`: its tables, its file, and that checkpoints save the memory that it says they save."""

import json
from pathlib import Path

import pytest

from cli.main import main
from model import memory, speed


def test_it_prints_two_tables_and_keeps_every_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in {"STEPS": 3, "BATCH": 2, "WIDTH": 4}.items():
        monkeypatch.setattr(speed, name, size)
    monkeypatch.setattr(memory, "STEPS", (400,))
    out = tmp_path / "b.json"
    assert main(["bench", "train", "--runs", "1", "--out", str(out)]) == 0
    document, text = json.loads(out.read_text()), capsys.readouterr().out
    assert document["machine"]["cores"] >= 1
    for line in document["speed"]:
        assert f"| {line['cell']} | {line['way']} | {line['median']:.2f} |" in text
    whole, segments = document["checkpointing"]
    assert (whole["checkpointing"], segments["checkpointing"]) == (False, True)
    assert 0 < segments["mebibytes"] < 0.6 * whole["mebibytes"]
    assert f"| 400 | yes | {segments['mebibytes']:.0f} |" in text
