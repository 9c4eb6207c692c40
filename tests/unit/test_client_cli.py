"""`carousel stream`, against a stand-in for the client: what it reads, steps and prints."""

import io
import json
import sys
from typing import Any, Self

import numpy as np
import pytest

import cli.stream
from carousel.client import InvalidInputError, Limits, ServedModel, ServerUnreachableError, SessionGoneError
from carousel.contract import Contract, Plane, Port, Segment, Signature, layout_hash
from carousel.wire.carousel_pb2 import Reason
from cli.main import main

VOCABULARY = ("?", "a", "b", "c", "d")


def contract(inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Contract:
    planes = (Plane(input="state", output="state_out", dtype="float32", size=1),)
    segments = (Segment(name="layer0.hidden", start=0, size=1),)
    return Contract(
        task="fake",
        recurrence="fake",
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        invariant=True,
        signature=Signature(layout=layout_hash("fake", inputs, outputs, planes, segments), lineage="fake"),
    )


TEXT = contract(
    (Port(name="token", dtype="int64", vocabulary=VOCABULARY, unknown=0),),
    (Port(name="logits", dtype="float32", shape=(5,), vocabulary=VOCABULARY),),
)
NUMBERS = contract(
    (Port(name="x", dtype="float32"), Port(name="n", dtype="int32")), (Port(name="y", dtype="float32"),)
)


class FakeSession:
    """Text: the next letter is the likeliest, and 'unknown' more so. Numbers: x + n."""

    chunk_steps = 3

    def __init__(self, name: str, model: str) -> None:
        self.id = name
        self.model = model
        self.contract = TEXT if model == "text" else NUMBERS
        self.stepped: list[list[int]] = []
        self.closed = False

    def step(self, inputs: Any, *, timeout_s: float) -> dict[str, np.ndarray]:
        if self.contract is NUMBERS:
            return {"y": inputs["x"] + inputs["n"].astype(np.float32)}
        self.stepped.append(inputs.tolist())
        logits = np.zeros((len(inputs), 5), np.float32)
        logits[np.arange(len(inputs)), np.where(inputs == 4, 1, inputs + 1)] = 10
        logits[:, 0] = 20
        return {"logits": logits}

    def close(self) -> int:
        self.closed = True
        return 0


class FakeClient:
    models_served = ("text",)
    sessions: dict[str, FakeSession]
    lost: Exception | None = None

    def __init__(self, target: str, **_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *trouble: object) -> None:
        pass

    def models(self) -> list[ServedModel]:
        if self.lost is not None:
            raise self.lost
        limits = Limits(3, 8, 1 << 20, 1 << 20, 64)
        return [ServedModel(name, "1", TEXT, limits) for name in self.models_served]

    def open(self, model: str, *, session: str = "") -> FakeSession:
        name = session or "made-by-server"
        self.sessions[name] = FakeSession(name, model)
        return self.sessions[name]

    def attach(self, session: str) -> FakeSession:
        if session not in self.sessions:
            reason = Reason.SESSION_EXPIRED if session == "expired" else Reason.SESSION_NOT_FOUND
            raise SessionGoneError(f"session {session!r} is gone", reason)
        return self.sessions[session]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    fresh = type("FreshClient", (FakeClient,), {"sessions": {}})
    monkeypatch.setattr(cli.stream, "Client", fresh)
    return fresh


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_piped_text_is_stepped_through_and_gone_on_with(
    fake: type[FakeClient], pipe: Any, capsys: Any
) -> None:
    pipe("abcab")
    assert main(["stream", "--generate", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "cdab\n"
    session = fake.sessions["made-by-server"]
    assert session.stepped == [[1, 2, 3], [1, 2], [3], [4], [1], [2]]
    assert session.closed


def test_lines_typed_at_the_prompt_are_gone_on_with_one_by_one(
    fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("\na\n\nc\n"))
    assert main(["stream", "--generate", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.replace("> ", "").split() == ["bc", "da", "da"]


def test_a_seed_makes_the_draws_repeatable(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    drawn = set()
    for _ in range(3):
        pipe("a")
        assert main(["stream", "--generate", "50", "--temperature", "5", "--seed", "3"]) == 0
        drawn.add(capsys.readouterr().out)
    assert len(drawn) == 1
    assert "?" not in drawn.pop(), "the unknown token is never drawn"


def test_without_text_there_is_nothing_to_go_on_with(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    pipe("")
    assert main(["stream"]) == 1
    assert capsys.readouterr().err == "carousel stream: expected text to go on with, came none\n"


def test_other_models_take_and_give_json_lines(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    pipe('{"x": [1.5, 2], "n": [1, 2]}\n\n{"n": [3], "x": [0]}\n')
    assert main(["stream", "--model", "numbers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [{"y": [2.5, 4.0]}, {"y": [3.0]}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: Expecting property name"),
        ("[1]", "line 1: expected an object with x, n, came [1]"),
        ('{"x": [1]}', "line 1: expected an object with x, n"),
        ('{"x": [1], "n": [0.5]}', "line 1: n: expected numbers that fit int32, came [0.5]"),
        ('{"x": [1], "n": [3000000000]}', "line 1: n: expected numbers that fit int32"),
        ('{"x": [1], "n": [NaN]}', "line 1: n: expected numbers that fit int32"),
        ('{"x": [{}], "n": [1]}', "line 1: float() argument must be"),
        ('{"x": ["one"], "n": [1]}', "line 1: could not convert string to float"),
        ('{"x": [[1], [1, 2]], "n": [1]}', "line 1: setting an array element"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    fake: type[FakeClient], pipe: Any, capsys: Any, line: str, words: str
) -> None:
    pipe(line)
    assert main(["stream", "--model", "numbers"]) == 1
    assert capsys.readouterr().err.startswith(f"carousel stream: {words}")
    assert fake.sessions["made-by-server"].closed


def test_a_choice_of_models_has_to_be_made(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    fake.models_served = ("text", "numbers", "text")
    pipe("a")
    assert main(["stream"]) == 1
    assert capsys.readouterr().err == "carousel stream: choose one with --model: numbers, text\n"


def test_a_kept_session_is_named_and_found_again(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    for text, drawn in (("a", "b\n"), ("c", "d\n")):
        pipe(text)
        arguments = ["--session", "mine", "--keep", "--generate", "1", "--temperature", "0"]
        assert main(["stream", *arguments]) == 0
        assert capsys.readouterr() == (drawn, "session mine\n")
    assert fake.sessions["mine"].stepped == [[1], [2], [3], [4]]
    assert not fake.sessions["mine"].closed


def test_a_session_of_another_model_is_refused(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    fake.sessions["mine"] = FakeSession("mine", "text")
    pipe("a")
    assert main(["stream", "--session", "mine", "--model", "numbers"]) == 1
    assert "runs model 'text', not 'numbers'" in capsys.readouterr().err


def test_an_expired_session_is_told_and_not_begun_again(
    fake: type[FakeClient], pipe: Any, capsys: Any
) -> None:
    assert main(["stream", "--session", "expired"]) == 1
    assert capsys.readouterr().err == "carousel stream: session 'expired' is gone\n"


def test_a_server_that_is_not_there_is_one_line(fake: type[FakeClient], pipe: Any, capsys: Any) -> None:
    fake.lost = ServerUnreachableError("no answer from 127.0.0.1:8001 within 5 s:\nrefused")
    assert main(["stream"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_errors_of_the_service_are_one_line(
    fake: type[FakeClient], pipe: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise InvalidInputError("token: 9 is outside the vocabulary")

    monkeypatch.setattr(FakeSession, "step", refuse)
    pipe("a")
    assert main(["stream"]) == 1
    assert capsys.readouterr().err == "carousel stream: token: 9 is outside the vocabulary\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--temperature", "warm"),
        ("--temperature=-1",),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--generate", "1.5"),
        ("--seed=-1",),
    ],
)
def test_numbers_that_make_no_sense_are_wrong_usage(capsys: Any, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["stream", *arguments])
    assert "0 or more, came" in capsys.readouterr().err
