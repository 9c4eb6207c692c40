"""A client that knows nothing but an address: the server tells the rest by reflection. No generated code, no retries.

    python by_reflection.py 127.0.0.1:8001 < plan.json

Plan and answers are those of `examples/node/demo.js`. Every frame is sent twice: what is applied once is answered twice.
"""

import base64
import json
import queue
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "carousel.v1.Carousel"


class Server:
    """Every method of the service by its name, as the server describes it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._service = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE)

    def message(self, method: str, **fields: Any) -> Any:
        return GetMessageClass(self._service.methods_by_name[method].input_type)(**fields)

    def call(self, method: str, **fields: Any) -> Any:
        return self._callable(self._channel.unary_unary, method)(self.message(method, **fields))

    def stream(self, method: str, requests: Iterator[Any]) -> Iterator[Any]:
        return self._callable(self._channel.stream_stream, method)(requests)

    def _callable(self, kind: Any, method: str) -> Any:
        found = self._service.methods_by_name[method]
        return kind(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )


class Conversation:
    """One stream, with any number of sessions attached."""

    def __init__(self, server: Server, contract: dict[str, Any]) -> None:
        self._server = server
        self._contract = contract
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses = server.stream("Stream", iter(self._requests.get, None))

    def attach(self, session: str) -> int:
        """The session's handle."""
        self._requests.put(self._server.message("Stream", attach={"sessions": [session]}))
        attached = next(self._responses).attached
        assert not attached.errors, attached.errors
        return int(attached.first_handle)

    def step(self, handles: list[int], firsts: list[int], chunks: list[list[int]]) -> list[str]:
        """Step each handle by its chunk; the answers in the same order, base64."""
        (port,) = self._contract["inputs"]
        frame = {
            "handles": handles,
            "first_indices": firsts,
            "lengths": [len(chunk) for chunk in chunks],
            "acknowledged": firsts,
            "inputs": [
                {"name": port["name"], "data": np.concatenate(chunks).astype(port["dtype"]).tobytes()}
            ],
        }
        request = self._server.message("Stream", steps=frame)
        tries = []
        for _ in range(2):
            self._requests.put(request)
            tries.append(self._answers(len(handles)))
        assert tries[0] == tries[1]
        return [tries[0][handle] for handle in handles]

    def close(self) -> None:
        self._requests.put(None)
        assert list(self._responses) == []

    def _answers(self, count: int) -> dict[int, str]:
        found: dict[int, str] = {}
        while len(found) < count:
            frame = next(self._responses).answers
            assert not frame.errors, frame.errors
            (tensor,) = frame.outputs
            step_bytes, start = len(tensor.data) // sum(frame.lengths), 0
            for handle, length in zip(frame.handles, frame.lengths, strict=True):
                rows = tensor.data[start * step_bytes : (start + length) * step_bytes]
                found[handle] = base64.b64encode(rows).decode()
                start += length
        return found


def main(target: str) -> None:
    """Follow the plan on the standard input."""
    plan = json.load(sys.stdin)
    with grpc.insecure_channel(target) as channel:
        server = Server(channel)
        for name in plan["sessions"]:
            server.call("Open", model=plan["model"], session=name, request_id=f"open {name}")
        (model,) = (model for model in server.call("ListModels").models if model.name == plan["model"])
        talk = Conversation(server, json.loads(model.contract))
        answers = told(talk, plan["sessions"])
        for name, chunks in plan["sessions"].items():
            answers[name] |= ending(server, talk, name, chunks)
        talk.close()
    json.dump(answers, sys.stdout)


def told(talk: Conversation, sessions: dict[str, list[list[int]]]) -> dict[str, dict[str, Any]]:
    """All chunks of all sessions: the first of each in one frame, then all second ones, and so on."""
    handles = {name: talk.attach(name) for name in sessions}
    firsts = dict.fromkeys(sessions, 0)
    answers: dict[str, dict[str, Any]] = {name: {"told": []} for name in sessions}
    for turn in range(max(map(len, sessions.values()))):
        chunks = {name: chunks[turn] for name, chunks in sessions.items() if turn < len(chunks)}
        given = talk.step(
            [handles[name] for name in chunks], [firsts[name] for name in chunks], list(chunks.values())
        )
        for name, answer in zip(chunks, given, strict=True):
            answers[name]["told"].append(answer)
            firsts[name] += len(chunks[name])
    return answers


def ending(server: Server, talk: Conversation, name: str, chunks: list[list[int]]) -> dict[str, Any]:
    """The last chunk again: by a fork, by the session, and by the session put back."""
    first, last = sum(map(len, chunks)), chunks[-1]
    (copy,) = server.call("Fork", session=name, count=1, request_id=f"fork {name}").copies
    snapshot = server.call("Snapshot", session=name).snapshot
    (forked,) = talk.step([talk.attach(copy)], [first], [last])
    (before,) = talk.step([talk.attach(name)], [first], [last])
    restored = server.call("Restore", session=name, snapshot=snapshot, request_id=f"restore {name}")
    assert restored.next_index == first
    (after,) = talk.step([talk.attach(name)], [first], [last])
    following = [server.call("Describe", session=one).next_index for one in (name, copy)]
    return {"forked": forked, "before": before, "after": after, "next": following}


if __name__ == "__main__":
    main(sys.argv[1])
