"""Real processes for tests."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Service:
    process: "subprocess.Popen[str]"
    grpc_port: int
    http_port: int


@contextmanager
def running_service(repository: Path, *options: str) -> Iterator[Service]:
    """`carousel serve` on free ports, as its own process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "cli", "serve", "--models", str(repository)]
    command += ["--grpc-port", "0", "--http-port", "0", "--log-format", "json", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "serving":
                yield Service(process, event["grpc_port"], event["http_port"])
                return
        raise AssertionError("the service ended before it served")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
