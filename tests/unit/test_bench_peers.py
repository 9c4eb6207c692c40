"""The comparison with other servers: what it finds in numbers, what it prints, and what it says when something is missing."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.peers import servers
from bench.peers.check import Verdict, compare, direct, inputs
from bench.peers.compare import FRAMES, SINGLE, server_table
from bench.peers.measure import Sample
from bench.peers.messages import ModelInferResponse, PredictionResponse
from bench.peers.processes import cpu_seconds, group
from bench.peers.states import States
from bench.peers.wires import _infer_request
from bench.report import table
from bench.rows import AtLeast, Ratio
from carousel.errors import CarouselError
from cli.bench import PEERS
from cli.main import main
from export.bare import bare_lstm

ROOT = Path(__file__).resolve().parents[2]
STEPS, SESSIONS = 40, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("peers") / "model.onnx"
    file.write_bytes(bare_lstm(8, 4, 1).SerializeToString())
    return file


@pytest.fixture(scope="module")
def expected(model: Path) -> np.ndarray:
    return direct(model, range(SESSIONS), STEPS)


def blobs(answers_TSH: np.ndarray) -> list[bytes]:
    return [y_SH.tobytes() for y_SH in answers_TSH]


def test_a_peer_that_keeps_states_answers_what_the_direct_run_says(model: Path, expected: np.ndarray) -> None:
    states, x_PSI = States(str(model)), inputs(range(SESSIONS), 8)
    answers = np.empty_like(expected)
    for step, x_SI in enumerate(x_PSI[np.arange(STEPS) % len(x_PSI)]):
        answers[step, [2, 0]] = states.step(["c", "a"], x_SI[[2, 0]])
        answers[step, 1:2] = states.step(["b"], x_SI[1:2])
    assert compare(blobs(answers), expected) == Verdict(STEPS * SESSIONS, wrong=0, other_bits=0)


def test_sessions_are_given_different_inputs_and_answer_differently(expected: np.ndarray) -> None:
    assert len({y_H.tobytes() for y_SH in expected for y_H in y_SH}) == STEPS * SESSIONS


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (lambda y: y + 1e-3, Verdict(STEPS * SESSIONS, wrong=1, other_bits=1)),
        (lambda y: y * 0 + np.nan, Verdict(STEPS * SESSIONS, wrong=1, other_bits=1)),
        (lambda y: np.nextafter(y, 2), Verdict(STEPS * SESSIONS, wrong=0, other_bits=1)),
    ],
)
def test_one_number_that_is_off_makes_one_step_wrong(expected: np.ndarray, value, verdict: Verdict) -> None:
    answers = expected.copy()
    answers[7, 1, 2] = value(answers[7, 1, 2])
    assert compare(blobs(answers), expected) == verdict


def test_answers_of_another_session_are_wrong(expected: np.ndarray) -> None:
    assert compare(blobs(expected[:, ::-1]), expected).wrong == STEPS * (SESSIONS - 1)


def test_a_state_that_was_lost_makes_the_steps_after_it_wrong(expected: np.ndarray) -> None:
    forgot = np.concatenate(
        [expected[:32], expected[:8]]
    )  # the inputs go round in 32: the same steps from zeros
    assert compare(blobs(forgot), expected).wrong == 8 * SESSIONS


def test_an_answer_of_another_size_is_named(expected: np.ndarray) -> None:
    with pytest.raises(CarouselError, match="an answer has 44 bytes, expected 3 x 4 float32: 48"):
        compare([*blobs(expected[:3]), b"\0" * 44], expected)


def test_messages_have_the_numbers_of_the_protocols() -> None:
    """Bytes written by hand after the `.proto` files."""
    session = b"\x0a\x07session\x12\x05INT64\x1a\x02\x01\x01"
    x = b"\x0a\x01x\x12\x04FP32\x1a\x02\x01\x01"
    raw = b"\x3a\x08\x05" + bytes(7) + b"\x3a\x04" + bytes(4)
    request = b"\x0a\x05bench\x2a" + bytes([len(session)]) + session + b"\x2a" + bytes([len(x)]) + x + raw
    assert _infer_request(5, np.zeros(1, "<f4")) == request
    assert ModelInferResponse.FromString(b"\x0a\x05bench\x32\x02ab").raw_output_contents == [b"ab"]
    answer = PredictionResponse.FromString(b"\x0a\x02ab\x12\x017\x1a\x07\x08\x0d\x12\x03why")
    assert (answer.prediction, answer.status.code, answer.status.message) == (b"ab", 13, "why")


def sample(target: str, rate: float, wrong: int = 0) -> dict[str, object]:
    made = Sample(
        target, rate, 1.25, 9.75, 0.9, {"java 12": 0.8, "python3 13": 0.1}, [0.2, 0.3], 500, wrong, 7
    )
    return vars(made)


def test_the_tables_show_ratios_medians_processes_and_wrong_answers() -> None:
    ours = [[sample("carousel", rate * much) for rate in (300.0, 500.0, 400.0)] for much in (1, 10)]
    theirs = [sample("TorchServe", 100.0, wrong) for wrong in (0, 3, 0)]
    ratios = [
        Ratio(
            row,
            "rate",
            "TorchServe",
            AtLeast(5),
            [a["steps_per_second"] / 100 for a in side],
            [{"ours": a, "base": b} for a, b in zip(side, theirs, strict=True)],
        )
        for row, side in zip((SINGLE, FRAMES), ours, strict=True)
    ]
    assert f"| {SINGLE} | rate | TorchServe | ≥ 5 | 4.00 | 3.00 to 5.00 |" in table(ratios)
    processes = "java 80% + python3 10% | 20% + 30%"
    assert server_table(ratios).splitlines()[2:] == [
        f"| TorchServe | TorchServe | 1 step | 100 | 1.2 | 9.8 | {processes} | 1500 | 3 | 21 |",
        f"| TorchServe | carousel | 1 step | 400 | 1.2 | 9.8 | {processes} | 1500 | 0 | 21 |",
        f"| TorchServe | carousel | 64 steps | 4000 | 1.2 | 9.8 | {processes} | 1500 | 0 | 21 |",
    ]


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_environment_is_one_line_with_what_makes_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "ENVIRONMENTS", tmp_path)
    assert main(["bench", "peers", name]) == 1
    said = f"carousel bench: {servers.PEERS[name].title} has no environment in {tmp_path / name}: `make peers` makes it\n"
    assert capsys.readouterr() == ("", said)


def test_missing_java_is_one_line_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torchserve").mkdir()
    (tmp_path / "torchserve" / ".ready").touch()
    monkeypatch.setattr(servers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert main(["bench", "peers", "torchserve"]) == 1
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert f"needs Java 17 and there is no {tmp_path}/bin/java; on Debian: apt-get install" in said


def test_a_peer_that_ends_at_once_is_one_line_with_what_it_said(model: Path) -> None:
    def launch(_: Path, folder: Path) -> servers.Launch:
        assert (folder / "model.onnx").read_bytes() == model.read_bytes()
        return servers.Launch([sys.executable, "-c", "print('starting'); import nothing_of_ours"], port=1)

    peer = servers.Peer("kserve", "A peer", "inference", launch)
    said = r"A peer does not answer \(AioRpcError\); it said: ModuleNotFoundError: No module named 'nothing_of_ours'"
    with pytest.raises(CarouselError, match=said), servers.started(peer, model, 8):
        raise AssertionError("it did not start")


def test_a_peer_nobody_knows_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "peers", "triton"])
    assert left.value.code == 2
    assert "expected one of mlserver, torchserve, kserve, got 'triton'" in capsys.readouterr().err


def test_every_peer_has_an_environment_with_everything_pinned_and_the_runtime_that_we_test_with() -> None:
    assert tuple(servers.PEERS) == PEERS
    (ours,) = re.findall(r"^onnxruntime==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for name in PEERS:
        lines = (servers.HERE / name / "requirements.txt").read_text().splitlines()[1:]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
        assert ours in lines


def test_a_server_ends_with_all_that_it_started(tmp_path: Path) -> None:
    program = "import subprocess; subprocess.run(['sleep', '60'])"
    with group([sys.executable, "-c", program], tmp_path, {}) as process:
        while len(family := cpu_seconds(process.pid)) < 2:
            assert process.poll() is None
    assert process.poll() is not None
    while any(lives(int(who.split()[1])) for who in family):  # a signal takes its time
        pass


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
