"""The `carousel` command as a whole: help, wrong usage, and what is loaded for it."""

import subprocess
import sys

import pytest

from cli.main import COMMANDS, main
from cli.progress import waiting

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


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("working") as tell:
        tell("still working")
    assert capsys.readouterr() == ("", "")
