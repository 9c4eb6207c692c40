"""Certificates of callers, against an authority made for the test."""

from pathlib import Path

import grpc
import pytest

from carousel.wire import carousel_pb2 as pb
from tests.house import ALICE, BOB, UNKNOWN, Authority, certified, refused
from tests.wire import attach, converse


@pytest.mark.parametrize(
    ("names", "common", "token", "whose"),
    [
        (("carol.example",), None, None, "carol"),
        (("other.example", "alice.example"), None, None, "alice"),
        (("other.example",), "Alice", None, "alice"),
        (("alice.example",), None, ALICE, "alice"),
        (("other.example",), None, BOB, "bob"),
        (("other.example",), None, None, None),
        (("other.example",), None, ALICE, None),
        (("carol.example",), None, BOB, None),
        (("carol.example",), None, "token-of-nobody", None),
    ],
)
async def test_a_certificate_names_an_owner_and_a_token_beside_it_the_same_one(
    repository: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    common: str | None,
    token: str | None,
    whose: str | None,
) -> None:
    async with (
        certified(repository, tmp_path) as (house, authority),
        house.stub(token, authority.credentials(*names, common=common)) as stub,
    ):
        if whose is None:
            async with refused(*UNKNOWN):
                await stub.Open(pb.OpenRequest(model="tiny"))
            return
        session = (await stub.Open(pb.OpenRequest(model="tiny"))).session
        table = house.server.engine.table
        assert table.owner_of(table.find(whose, session, house.server.engine.clock())) == whose
        (attached,) = await converse(stub, attach(session))
        assert not attached.attached.errors


async def test_without_a_certificate_of_the_authority_nobody_connects(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "stranger").mkdir()
    async with certified(repository, tmp_path) as (house, authority):
        cert, key = Authority(tmp_path / "stranger").files("client", "alice.example")
        root = authority.root.read_bytes()
        for credentials in (
            grpc.ssl_channel_credentials(root),
            grpc.ssl_channel_credentials(root, key.read_bytes(), cert.read_bytes()),
            None,
        ):
            async with house.stub(ALICE, credentials) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ListModels(pb.ListModelsRequest())
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
