"""The `carousel` command as a whole: help, wrong usage, and what is loaded for it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.main import COMMANDS, EXTRAS, main
from cli.progress import waiting

ROOT = Path(__file__).resolve().parents[2]

HEAVY = ("torch", "onnx", "onnxruntime", "grpc", "matplotlib")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_comes_without_loading_what_it_would_run(command: str) -> None:
    allowed = {"grpc"} if command == "stream" else set()
    program = (
        "import sys\nfrom cli.main import main\n"
        f"try: main([{command!r}, '--help'])\n"
        f"except SystemExit as done: print('left', done.code, *({set(HEAVY) - allowed!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: carousel {command}")
    assert done.stdout.endswith("left 0\n")


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text and summary in text for command, summary in COMMANDS.items())


@pytest.mark.parametrize("argv", [["nonsense"], ["export"], ["bench", "nothing"], ["train"]])
def test_wrong_usage_is_told_with_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "package", "extra"),
    [
        (["export", "run", "--out", "model"], "onnx", "export"),
        (["inspect", "model"], "onnx", "export"),
        (["verify", "model"], "onnx", "export"),
        (["train", "recipe"], "torch", "train"),
        (["bench", "cuda"], "torch", "train"),
        (["bench", "export"], "onnxruntime", "cpu"),
    ],
)
def test_a_package_that_an_extra_brings_is_named_with_it_in_one_line(
    argv: list[str], package: str, extra: str
) -> None:
    program = (
        "import sys\nfrom cli.main import EXTRAS, main\n"
        f"sys.modules.update(dict.fromkeys(EXTRAS))\nsys.exit(main({argv!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    told = f"expected the package {package}, which is not installed; install carousel[{extra}]\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"carousel {argv[0]}: {told}")


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_an_extra_that_is_named_brings_the_package(package: str, extra: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert package.replace("_", "-") in {requirement.split(">=")[0] for requirement in extras[extra]}


def test_a_module_of_no_extra_that_is_missing_is_a_fault_and_not_explained_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cli.token", None)
    with pytest.raises(ModuleNotFoundError, match=r"cli\.token"):
        main(["token"])


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("working") as tell:
        tell("still working")
    assert capsys.readouterr() == ("", "")
