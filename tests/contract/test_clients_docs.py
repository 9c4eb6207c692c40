"""What docs/clients.md shows, run against a real server: every print prints what the comment behind it says."""

import asyncio
import contextlib
import io
import json
import re
import shlex
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import carousel.client
from carousel.client.errors import ERRORS
from carousel.wire.carousel_pb2 import Reason
from service.kept import WINDOW_CHUNKS
from service.server import Server
from tests.models import tiny_characters
from tests.ports_model import serving
from tests.whole import both_ways, draw, pair, tree

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
ADDRESS = "127.0.0.1:8001"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def promised(code: str) -> list[str]:
    """What the comments say that will be printed."""
    return re.findall(r"^ *(?:print|console\.log)\(.*\) +(?:#|//) (.*)$", code, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_characters(folder, name="stdlib")
    for name, model in (("tagger", both_ways()), ("parser", tree()), ("translator", pair(attention=True))):
        draw(folder, name, model)
    return folder


@pytest.fixture
async def served(models: Path) -> AsyncIterator[Server]:
    async with serving(models) as (server, _):
        yield server


def printed(code: str, names: dict[str, Any]) -> list[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "docs/clients.md", "exec"), names)
    return out.getvalue().splitlines()


async def test_the_python_of_the_page_prints_what_it_says(served: Server) -> None:
    names: dict[str, Any] = {}
    assert len(blocks("python")) == 7
    for code in blocks("python"):
        assert promised(code)
        ours = code.replace(ADDRESS, f"127.0.0.1:{served.grpc_port}")
        assert await asyncio.to_thread(printed, ours, names) == promised(code)
    await asyncio.to_thread(names["client"].close)


async def test_the_calls_made_by_grpcurl_are_understood_and_answered(served: Server) -> None:
    def call_all() -> list[Any]:
        with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            return [answer for line in block.splitlines() if (answer := call(channel, pool, line))]

    (block,) = blocks("sh")
    opened, stepped, described = await asyncio.to_thread(call_all)
    assert opened.session == described.session == "by-hand"
    assert (stepped.first_index, stepped.length, described.next_index) == (0, 1, 1)


def call(channel: grpc.Channel, pool: DescriptorPool, line: str) -> Any:
    """Do what grpcurl does with a line; None for `describe`."""
    program, plain, *options, address, last = shlex.split(line)
    if options[-1:] == ["describe"] or address == "describe":
        assert pool.FindServiceByName(last).name == "Carousel"
        return None
    assert (program, plain, options[0], address) == ("grpcurl", "-plaintext", "-d", ADDRESS)
    service, _, name = last.partition("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    request = ParseDict(json.loads(options[1]), GetMessageClass(method.input_type)())
    send = channel.unary_unary(
        f"/{last}", type(request).SerializeToString, GetMessageClass(method.output_type).FromString
    )
    return send(request)


def test_every_error_of_the_client_is_in_the_table_with_its_reasons() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| (.*?) \|", PAGE, flags=re.MULTILINE)
    told = {error: set(re.findall(r"`(\w+)`", reasons)) for error, reasons in rows}
    wanted: dict[str, set[str]] = {}
    for reason, kind in ERRORS.items():
        if reason != Reason.REASON_UNSPECIFIED:
            wanted.setdefault(kind.__name__, set()).add(Reason.Name(reason))
    assert told == wanted
    for name in re.findall(r"`(\w+Error)`", PAGE):
        assert hasattr(carousel.client, name)


def test_reasons_and_numbers_in_the_rules_are_those_of_the_service() -> None:
    rules = PAGE.split("## Retries and indices")[1]
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+|DRAINING)`", rules)) <= set(Reason.keys())
    assert f"At most {WINDOW_CHUNKS} chunks" in rules
    assert re.findall(r"^(\d+)\. ", rules, flags=re.MULTILINE) == [str(k) for k in range(1, 11)]


def test_an_int64_of_1_is_the_base64_that_the_page_says() -> None:
    assert f"`{b64encode(np.array([1], '<i8').tobytes()).decode()}` is an int64 of 1" in PAGE
