"""TLS on the gRPC port, against a certificate authority made for the test."""

from pathlib import Path

import grpc
import pytest
import trustme

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.server import start_server
from service.settings import Settings


async def test_with_a_certificate_only_tls_is_spoken(repository: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    server = await start_server(
        Settings.load(
            {"models": repository, "grpc_port": 0, "http_port": 0, "tls_cert": cert, "tls_key": key}
        )
    )
    address = f"127.0.0.1:{server.grpc_port}"
    trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(address, trusting) as channel:
        assert (await CarouselStub(channel).ListModels(pb.ListModelsRequest())).models
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CarouselStub(channel).ListModels(pb.ListModelsRequest(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await server.stop()
