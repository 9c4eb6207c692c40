"""Clients in other languages against a real server: `make interop`. Needs Node.js, and is not part of the default tests.

Their answers are those of the Python client, bit for bit.
"""

import asyncio
import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.proxy import CuttableProxy
from carousel.client import AsyncClient
from service.server import Server
from tests.models import tiny_characters
from tests.ports_model import serving

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]
NODE_FOLDER = ROOT / "examples" / "node"
PAGE = (ROOT / "docs" / "clients.md").read_text()
NODE = ["node", str(NODE_FOLDER / "demo.js")]
REFLECTION = [sys.executable, str(Path(__file__).with_name("by_reflection.py"))]
OUTPUT = "logits"

Plan = dict[str, list[list[int]]]


def plan(name: str, sessions: int = 5, chunks: int = 12) -> Plan:
    """Chunks of 1 to 7 tokens for each session; some sessions end before the others."""
    rng = np.random.default_rng(0)
    return {
        f"{name}-{k}": [rng.integers(0, 20, rng.integers(1, 8)).tolist() for _ in range(chunks - k % 3)]
        for k in range(sessions)
    }


async def answers_of(command: list[str], port: int, sessions: Plan) -> dict[str, Any]:
    """What another client makes of a plan."""
    process = await asyncio.create_subprocess_exec(
        *command,
        f"127.0.0.1:{port}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    wanted = json.dumps({"model": "tiny", "sessions": sessions}).encode()
    async with asyncio.timeout(60):
        told, _ = await process.communicate(wanted)
    assert process.returncode == 0
    return json.loads(told)


async def our_answers(client: AsyncClient, chunks: list[list[int]]) -> dict[str, Any]:
    """The same by the Python client, in a session of its own."""
    session = await client.open("tiny")

    async def step(who: Any, tokens: list[int]) -> str:
        outputs = await who.step(np.array(tokens))
        return base64.b64encode(outputs[OUTPUT].tobytes()).decode()

    told = [await step(session, tokens) for tokens in chunks]
    (copy,) = await session.fork()
    snapshot = await session.snapshot()
    forked, before = await step(copy, chunks[-1]), await step(session, chunks[-1])
    await session.restore(snapshot)
    after = await step(session, chunks[-1])
    following = [session.next_index, copy.next_index]
    return {"told": told, "forked": forked, "before": before, "after": after, "next": following}


async def compare(server: Server, sessions: Plan, theirs: dict[str, Any]) -> None:
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        for name, chunks in sessions.items():
            ours = await our_answers(client, chunks)
            assert theirs[name] == ours
            assert ours["forked"] == ours["before"] == ours["after"]
            assert (await client.attach(name)).next_index == ours["next"][0]


@pytest.mark.parametrize("command", [NODE, REFLECTION], ids=["node", "reflection"])
async def test_other_clients_get_the_answers_of_the_python_client(
    server: Server, command: list[str], request: pytest.FixtureRequest
) -> None:
    sessions = plan(request.node.callspec.id)
    await compare(server, sessions, await answers_of(command, server.grpc_port, sessions))


async def test_a_node_client_whose_connection_breaks_applies_every_chunk_once(server: Server) -> None:
    sessions = plan("cut", sessions=20, chunks=60)
    async with CuttableProxy(server.grpc_port) as proxy:

        async def break_things() -> None:
            while True:
                await asyncio.sleep(0.05)
                proxy.swallow_answers()
                await asyncio.sleep(0.02)
                proxy.cut()

        breaking = asyncio.create_task(break_things())
        try:
            theirs = await answers_of(NODE, proxy.port, sessions)
        finally:
            breaking.cancel()
        assert proxy.accepted > 3
    await compare(server, sessions, theirs)


async def test_a_node_client_is_told_what_is_wrong(server: Server) -> None:
    with pytest.raises(AssertionError):
        await answers_of(NODE, server.grpc_port, {"wrong": [[1], [99]]})
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        assert (await client.attach("wrong")).next_index == 1


async def test_the_javascript_of_the_page_prints_what_it_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```js\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (promised,) = re.findall(r"console\.log\(.*\) // (.*)", code)
    tiny_characters(tmp_path, name="stdlib")
    async with serving(tmp_path) as (server, _):
        code = code.replace("127.0.0.1:8001", f"127.0.0.1:{server.grpc_port}")
        command = ["node", "--input-type=module", "--eval", code]
        assert await printed(command, NODE_FOLDER) == promised + "\n"


async def printed(command: list[str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        told, _ = await process.communicate()
    assert process.returncode == 0
    return told.decode()
