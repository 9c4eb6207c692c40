"""The peers as processes: each in its own environment, our adapter and the model in a folder made for the run.

How each is set up, and why, is in `bench/peers/README.md`.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.peers.check import inputs
from bench.peers.processes import group
from bench.peers.wires import WIRES
from bench.run import Target
from carousel.errors import CarouselError

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".peers"
START_S = 90.0
"""A server that has not answered a step by then never will."""


@dataclass(frozen=True)
class Launch:
    """How a server is started."""

    command: Sequence[str | Path]
    port: int
    """Where it will speak gRPC."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""


@dataclass(frozen=True)
class Peer:
    """A server to compare with."""

    name: str
    """Of its folder here, and of its environment."""
    title: str
    wire: str
    """As in `bench.peers.wires.WIRES`."""
    launch: Callable[[Path, Path], Launch]
    """From the folder of its programs and the folder it will run in."""
    java: bool = False
    """Whether it needs Java, which is several times slower before it has compiled what is used."""

    @property
    def warm_up_s(self) -> float:
        """How long it is under load before anything counts."""
        return 20.0 if self.java else 3.0


def check(peer: Peer) -> None:
    """Make sure that a peer can be started.

    Raises:
        CarouselError: Its environment was not made to the end, or there is no Java for it.
    """
    folder = ENVIRONMENTS / peer.name
    if not (folder / ".ready").exists():
        raise CarouselError(f"{peer.title} has no environment in {folder}: `make peers` makes it")
    if peer.java and not shutil.which(_java()):
        raise CarouselError(
            f"{peer.title} needs Java 17 and there is no {_java()}; on Debian: apt-get install openjdk-17-jre-headless"
        )


def _java() -> str:
    """The program that TorchServe will start."""
    return f"{os.environ['JAVA_HOME']}/bin/java" if "JAVA_HOME" in os.environ else "java"


@contextmanager
def started(peer: Peer, model: Path, input_size: int) -> Iterator[Target]:
    """A peer that answers steps of the model file.

    Raises:
        CarouselError: It does not answer.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:  # a process may write to its end
        folder = Path(place)
        shutil.copytree(HERE / peer.name, folder, dirs_exist_ok=True)
        shutil.copy(HERE / "states.py", folder)
        shutil.copy(model, folder / "model.onnx")
        launch = peer.launch(ENVIRONMENTS / peer.name / "bin", folder)
        with group(launch.command, folder, launch.settings) as process:
            target = Target(peer.title, peer.wire, launch.port, process.pid)
            _wait(target, process, folder / "log", input_size)
            yield target


def _wait(target: Target, process: "subprocess.Popen[bytes]", log: Path, input_size: int) -> None:
    try:
        asyncio.run(_first_answer(target, process, input_size))
    except (grpc.RpcError, CarouselError, TimeoutError) as error:
        lines = log.read_text(errors="replace").splitlines() or ["nothing"]
        said = next((line for line in lines if "Error: " in line), lines[-1])
        raise CarouselError(
            f"{target.name} does not answer ({type(error).__name__}); it said: {said}"
        ) from error


async def _first_answer(target: Target, process: "subprocess.Popen[bytes]", input_size: int) -> None:
    end = time.monotonic() + START_S
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        while True:
            try:
                async with asyncio.timeout(10):
                    step = await WIRES[target.kind](channel, inputs(range(1), input_size), 0)
                    await step(0)
            except (grpc.RpcError, CarouselError, TimeoutError):
                if process.poll() is not None or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)
            else:
                return


def _mlserver(programs: Path, folder: Path) -> Launch:
    rest, grpc_port = _free_ports(2)
    settings = {"MLSERVER_HTTP_PORT": str(rest), "MLSERVER_GRPC_PORT": str(grpc_port)}
    return Launch([programs / "mlserver", "start", folder], grpc_port, settings)


def _kserve(programs: Path, folder: Path) -> Launch:
    (port,) = _free_ports(1)
    return Launch([programs / "python", folder / "server.py", str(port)], port)


def _torchserve(programs: Path, folder: Path) -> Launch:
    archive = ["--model-name", "bench", "--version", "1", "--handler", "handler.py"]
    archive += ["--extra-files", "states.py,model.onnx", "--config-file", "model-config.yaml"]
    subprocess.run([programs / "torch-model-archiver", *archive], cwd=folder, check=True, capture_output=True)
    inference, management, metrics, port, grpc_management = _free_ports(5)
    settings = {
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{inference}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{management}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
        "TS_GRPC_INFERENCE_PORT": str(port),
        "TS_GRPC_MANAGEMENT_PORT": str(grpc_management),
        "TMPDIR": str(folder),  # else it finds any other TorchServe's process number and refuses to start
        "TEMP": str(folder),
    }
    command: list[str | Path] = [
        programs / "torchserve",
        "--start",
        "--foreground",
        "--disable-token-auth",
        "--ncs",
    ]
    command += ["--ts-config", "config.properties", "--log-config", "log4j2.xml"]
    command += ["--model-store", folder, "--models", "bench=bench.mar"]
    return Launch(command, port, settings)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mlserver", "MLServer", "inference", _mlserver),
        Peer("torchserve", "TorchServe", "predictions", _torchserve, java=True),
        Peer("kserve", "KServe SDK", "inference", _kserve),
    )
}
