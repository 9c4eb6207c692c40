"""Real processes for tests."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Service:
    process: "subprocess.Popen[str]"
    grpc_port: int
    http_port: int
    said: list[dict[str, Any]]
    """What it logged before it served."""

    def last_words(self) -> list[dict[str, Any]]:
        """What it logged since, once it has ended."""
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr]


def serve_command(repository: Path, *options: str) -> list[str]:
    """`carousel serve` on free ports; later options win."""
    command = [sys.executable, "-m", "cli", "serve", "--models", str(repository)]
    return [*command, "--grpc-port", "0", "--http-port", "0", "--log-format", "json", *options]


@contextmanager
def running_service(repository: Path, *options: str) -> Iterator[Service]:
    """A server as its own process, from when it serves; killed at the end if it still runs."""
    process = subprocess.Popen(serve_command(repository, *options), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(json.loads(line))
            if said[-1]["event"] == "serving":
                yield Service(process, said[-1]["grpc_port"], said[-1]["http_port"], said)
                return
        raise AssertionError("the service ended before it served")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
