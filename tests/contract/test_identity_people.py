"""Identities as people meet them: the commands, the clients, the settings, the log."""

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from carousel.client import AsyncClient, Client
from carousel.client.channel import open_channel
from carousel.client.errors import UnauthenticatedError
from carousel.wire import carousel_pb2 as pb
from cli.main import main
from service.identities import IdentitiesError, Owner, load_identities
from service.server import start_server
from service.settings import Settings, SettingsError
from service.tokens import hash_of, new_token
from tests.house import (
    ALICE,
    BOB,
    UNKNOWN,
    House,
    certified,
    identities,
    refused,
    serving,
)
from tests.wire import attach, tokens


@pytest.fixture
async def house(repository: Path, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(repository, tmp_path / "identities.toml", identities()) as house:
        yield house


async def test_a_token_as_the_command_prints_it_opens_the_service_to_the_clients(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", 'Ann of "hall 2"']) == 0
    token, lines = capsys.readouterr()
    (tmp_path / "ann.token").write_text(token)
    async with serving(repository, tmp_path / "ann.toml", lines) as house:
        async with AsyncClient(house.address, token=token.strip()) as client:
            session = await client.open("tiny")
            await session.step([1, 2])
            table = house.server.engine.table
            assert table.find('Ann of "hall 2"', session.id, 0.0) >= 0
        async with AsyncClient(house.address, token=new_token()) as client:
            with pytest.raises(UnauthenticatedError, match="nobody has this token"):
                await client.models()
        async with AsyncClient(house.address) as client:
            with pytest.raises(UnauthenticatedError, match="came nothing"):
                await client.models()


async def test_steps_of_a_client_whose_token_was_taken_back_fail_with_the_reason(house: House) -> None:
    async with AsyncClient(house.address, token=ALICE) as client:
        session = await client.open("tiny")
        await session.step([1])
        house.file.write_text(identities().replace(hash_of(ALICE), hash_of(new_token())))

        async def until_it_fails() -> None:
            while True:
                await session.step([1])

        with pytest.raises(UnauthenticatedError):
            await asyncio.wait_for(until_it_fails(), 20)


async def test_the_stream_command_takes_a_token_from_a_file(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alice.token").write_text(f"{ALICE}\n")
    arguments = [
        "stream",
        "--target",
        house.address,
        "--generate",
        "3",
        "--seed",
        "1",
        "--keep",
        "--session",
        "s",
    ]
    for more, code in (([], 1), (["--token-file", str(tmp_path / "alice.token")], 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO("abc"))
        assert await asyncio.to_thread(main, [*arguments, *more]) == code
        out, err = capsys.readouterr()
        assert (len(out), err.count("\n")) == (0 if code else 4, 1)
        assert ALICE not in out + err
    assert "expected 'Bearer TOKEN'" not in err
    table = house.server.engine.table
    assert int(table.next_index[table.find("alice", "s", 0.0)]) == 6


async def test_the_blocking_client_shows_token_and_certificate(repository: Path, tmp_path: Path) -> None:
    async with certified(repository, tmp_path) as (house, authority):
        cert, key = authority.files("client", "alice.example")

        def use(token: str | None) -> str:
            with Client(
                house.address.replace("127.0.0.1", "localhost"),
                token=token,
                tls_root=authority.root,
                tls_cert=cert,
                tls_key=key,
            ) as client:
                return client.open("tiny").id

        for token in (ALICE, None):
            session = await asyncio.to_thread(use, token)
            assert house.server.engine.table.find("alice", session, 0.0) >= 0
        with pytest.raises(UnauthenticatedError, match="expected those of one owner"):
            await asyncio.to_thread(use, BOB)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "no ascii: é", "tab\t"])
async def test_what_cannot_be_a_token_is_refused_before_it_is_sent_and_not_told(token: str) -> None:
    with pytest.raises(UnauthenticatedError, match="token: expected printable ASCII") as caught:
        AsyncClient(token=token)
    assert not token.strip() or token not in str(caught.value)


def test_half_a_certificate_is_a_mistake(tmp_path: Path) -> None:
    for given in ({"tls_cert": tmp_path}, {"tls_key": tmp_path}, {"tls_cert": tmp_path, "tls_key": tmp_path}):
        with pytest.raises(UnauthenticatedError, match="tls_cert and tls_key: expected both, and tls_root"):
            open_channel("127.0.0.1:1", None, **given)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Every line that is logged, of all levels."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines
    structlog.configure(wrapper_class=before)


@pytest.mark.parametrize(
    ("configured", "host", "event", "level"),
    [
        (False, "127.0.0.1", "everybody_is_admin", "info"),
        (False, "localhost", "everybody_is_admin", "info"),
        (False, "::1", "everybody_is_admin", "info"),
        (False, "0.0.0.0", "everybody_is_admin", "warning"),
        (True, "0.0.0.0", "tokens_in_the_clear", "warning"),
        (True, "127.0.0.1", None, None),
    ],
)
async def test_the_start_says_who_may_call_in_one_line(
    repository: Path,
    tmp_path: Path,
    logged: list[Any],
    configured: bool,
    host: str,
    event: str | None,
    level: str | None,
) -> None:
    (tmp_path / "i.toml").write_text(identities())
    settings = {"models": repository, "grpc_port": 0, "http_port": 0, "host": host}
    if configured:
        settings["identities"] = tmp_path / "i.toml"
    await (await start_server(Settings.load(settings))).stop()
    said = [line for line in logged if line["event"] in ("everybody_is_admin", "tokens_in_the_clear")]
    assert [(line["event"], line["log_level"]) for line in said] == ([(event, level)] if event else [])


async def test_no_log_line_shows_a_token_or_its_hash(
    repository: Path, tmp_path: Path, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = new_token()
    async with (
        serving(repository, tmp_path / "i.toml", identities()) as house,
        house.stub(ALICE) as alice,
        house.stub(wrong) as nobody,
    ):
        call = alice.Stream()
        await call.write(attach("none"))
        await call.read()
        for stub, session in ((alice, "none"), (nobody, "any")):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Step(pb.StepRequest(session=session, inputs=tokens(1)))
        house.file.write_text(identities().replace(hash_of(ALICE), ALICE))  # the token itself, by mistake
        async with asyncio.timeout(20):
            while not any(line["event"] == "identities_refused" for line in logged):
                await asyncio.sleep(0.02)
        house.file.write_text(identities().replace(hash_of(ALICE), hash_of(new_token())))
        async with refused(*UNKNOWN):
            await call.read()
    refusals = [line for line in logged if line["event"] == "call_refused"]
    assert [line.get("owner") for line in refusals] == ["alice", None, "alice"]
    text = repr(logged)
    assert not any(secret in text for token in (ALICE, wrong) for secret in (token, hash_of(token)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "identities.toml"),
        ("", "identities.toml: expected a table for each owner, came none"),
        ("[alice]\ntokens = ['secret']", "identities.toml: alice.tokens: expected sha256: and 64"),
    ],
)
async def test_a_file_that_cannot_be_used_stops_the_start(
    repository: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    with pytest.raises(FileNotFoundError if content is None else IdentitiesError, match=re.escape(message)):
        async with serving(repository, tmp_path / "identities.toml", content):
            pytest.fail("it serves")


def test_certificates_are_asked_for_over_tls_only(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tls_client_ca: expected tls_cert and tls_key as well"):
        Settings.load({"models": repository, "tls_client_ca": tmp_path})


def test_the_example_in_the_operations_page_is_a_file_that_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    section = page.split("## Who may call")[1].split("\n## ")[0]
    (tmp_path / "i.toml").write_text(section.split("```toml")[1].split("```")[0])
    owners = load_identities(tmp_path / "i.toml").owners
    assert [(name, owner.admin) for name, owner in owners.items()] == [("alice", True), ("bob", False)]
    keys = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))
    assert keys == set(Owner.model_fields)


def test_whoever_cannot_be_an_owner_gets_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", ""]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "carousel token: owner id: expected a name, came nothing\n")
