"""The service in an environment without torch and onnx: imports of them fail, and everything still works."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "safetensors", "lightning_fabric", "model", "export"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Absent())

import asyncio
import numpy as np
from carousel.client import AsyncClient
from cli.main import main
from service.server import start_server
from service.settings import Settings

async def serve_and_step():
    server = await start_server(Settings.load({"models": sys.argv[1], "grpc_port": 0, "http_port": 0}))
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session = await client.open("tiny")
        answer = await session.step(np.array([1, 2, 3]))
        assert answer["logits"].shape == (3, 29), answer
    assert await server.stop()

asyncio.run(serve_and_step())
for command in ("serve", "stream"):
    try:
        main([command, "--help"])
    except SystemExit as done:
        assert not done.code
print("served alone")
"""


def test_the_service_the_client_and_their_commands_run_without_torch_and_onnx(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(repository)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("served alone\n")


def test_without_a_runtime_the_service_says_in_one_line_which_extras_there_are(repository: Path) -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from cli.main import main\n"
        f"sys.exit(main(['serve', '--models', {str(repository)!r}, '--grpc-port', '0', '--http-port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "carousel[cpu]" in done.stderr
    assert "carousel[gpu]" in done.stderr
