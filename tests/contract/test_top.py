"""`carousel top`, on a real server."""

import asyncio
import os
import pty
import select
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from rich.console import Console, Group

import cli.top
from carousel.client import AsyncClient
from cli.main import main
from cli.top_figures import Figures, ModelFigures, Quantiles
from service.server import Server
from tests.processes import running_service


async def test_once_prints_the_figures_of_one_second(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session = await client.open("tiny")
        top = asyncio.create_task(asyncio.to_thread(main, ["top", f"127.0.0.1:{server.http_port}", "--once"]))
        steps = 0
        while not top.done():
            await session.step(np.array([1, 2, 3]))
            steps += 3
    assert await top == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert lines["ready"] == lines["sessions"] == lines["streams"] == "1"
    assert 0 < float(lines["tiny/1.steps_per_s"]) <= steps
    assert float(lines["tiny/1.steps_per_s"]) == pytest.approx(
        3 * float(lines["tiny/1.chunks_per_s"]), rel=1e-4
    )
    assert lines["tiny/1.mean_batch"] == "1"
    for name in ("queue", "run", "answer"):
        assert 0 < float(lines[f"tiny/1.{name}_p50_s"]) <= float(lines[f"tiny/1.{name}_p99_s"])


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "127.0.0.1:1", "--once"]) == 1
    error = capsys.readouterr().err
    assert error == (
        "carousel top: 127.0.0.1:1: no answer from the HTTP port of a service: [Errno 111] Connection refused\n"
    )


async def test_the_grpc_port_is_named_as_the_wrong_one(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["top", f"127.0.0.1:{server.grpc_port}", "--once"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"carousel top: 127.0.0.1:{server.grpc_port}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"# nothing\n", "expected the metrics of a service"),
        (b"<html>", "expected the HTTP port of a service"),
    ],
)
def test_another_server_is_named_as_such(capsys: pytest.CaptureFixture[str], page: bytes, words: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        assert main(["top", f"127.0.0.1:{other.server_port}", "--once"]) == 1
        other.shutdown()
    assert words in capsys.readouterr().err


def test_a_live_view_wants_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.top, "_scrape", lambda address: None)
    assert main(["top"]) == 1
    assert "expected a terminal" in capsys.readouterr().err


def read_until(terminal: int, words: bytes, seconds: float = 20) -> bytes:
    shown, end = b"", time.monotonic() + seconds
    while words not in shown:
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 1 << 16)
    return shown


def test_the_live_view_shows_the_model_and_ends_with_q(repository: Path) -> None:
    with running_service(repository) as service:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "cli", "top", f"127.0.0.1:{service.http_port}"]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "30"}
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment) as top:
            shown = read_until(ours, b"tiny/1")
            assert b"sessions 0 of" in shown
            service.process.kill()
            read_until(ours, b"no answer")
            os.write(ours, b"q")
            assert top.wait(20) == 0
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("width", [80, 140])
def test_nothing_is_cut_off_in_a_terminal_of_usual_width(width: int) -> None:
    duration = Quantiles(0.0001, 1.25)
    model = ModelFigures("characters/12", 123456.7, 12345.6, 128.4, 0.05, duration, duration, duration, 789.0)
    shown = Figures(True, 100000, 100000, 90000, 8000, 1000, {"QUEUE_FULL": 12.3}, [model])
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(Group(*cli.top._view("127.0.0.1:8002", shown, "")))
    text = capture.get()
    for words in (
        "characters/12",
        "123,457",
        "128.4",
        "5%",
        "100 us",
        "1.25 s",
        "QUEUE_FULL 12.3/s",
        "10000 in memory, 90000 in the file",
    ):
        assert words in text, text
    assert "…" not in text, text
