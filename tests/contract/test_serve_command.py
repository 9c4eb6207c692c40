"""`carousel serve`: its settings, its help and a person's mistakes."""

import shutil
from pathlib import Path

import onnxruntime
import pytest

from cli.main import main
from service.settings import Settings, SettingsError


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('models = "from-file"\ngrpc_port = 1\nhttp_port = 1\nmax_batch = 1\n')
    monkeypatch.setenv("CAROUSEL_GRPC_PORT", "2")
    monkeypatch.setenv("CAROUSEL_HTTP_PORT", "2")
    settings = Settings.load({"grpc_port": "3"}, file)
    assert (settings.grpc_port, settings.http_port, settings.max_batch) == (3, 2, 1)
    assert settings.models == Path("from-file")
    assert settings.max_sessions == 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('models = "m"\nport = 1\n', "port: "),
        ('models = "m"\ngrpc_port = 70000\n', "grpc_port: "),
        ('models = "m"\nmax_sessions = 300000000\n', "max_sessions: "),
        ("models = ", "not a TOML file"),
        ('models = "m"\ntls_cert = "c.pem"\n', "tls_cert and tls_key: expected both or neither"),
        ("", "models: "),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        Settings.load({}, file)


def test_help_tells_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["serve", "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
    assert "(default: 8001)" in text


@pytest.fixture(autouse=True)
def _logging_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.log.configure_logging", lambda _: None)


def serve(repository: Path, *options: str) -> int:
    return main(["serve", "--models", str(repository), "--grpc-port", "0", "--http-port", "0", *options])


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]):
    def read() -> str:
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert "Traceback" not in text
        return text

    return read


def test_a_missing_or_empty_repository_is_one_line(tmp_path: Path, one_line) -> None:
    assert serve(tmp_path / "nowhere") == 1
    assert "expected a folder with models" in one_line()
    assert serve(tmp_path) == 1
    assert "no model found" in one_line()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "onnxruntime cannot load it"),
        (lambda whole: b"not a model", "onnxruntime cannot load it"),
        (lambda whole: b"", "onnxruntime cannot load it"),
        (lambda whole: whole.replace(b"carousel.contract", b"carousel.contrast"), "no contract in the file"),
        (lambda whole: whole.replace(b'"format": 3', b'"format": 9'), "this release reads format 1"),
        (
            lambda whole: whole.replace(b'"lengths": "lengths"', b'"lengths": "lenghts"'),
            "contract and graph disagree",
        ),
    ],
)
def test_a_damaged_or_foreign_model_is_one_line(
    repository, tmp_path: Path, one_line, damage, message
) -> None:
    shutil.copytree(repository, tmp_path / "models")
    file = tmp_path / "models" / "tiny" / "1" / "model.onnx"
    file.write_bytes(damage(file.read_bytes()))
    assert serve(tmp_path / "models") == 1
    text = one_line()
    assert message in text
    assert str(file) in text


def test_cuda_that_is_not_there_refuses_to_start(repository: Path, one_line) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this runtime can have CUDA; the case is for machines that cannot")
    assert serve(repository, "--provider", "cuda") == 1
    assert "provider cuda" in one_line()


def test_an_unknown_provider_and_a_wrong_number_name_the_setting(repository: Path, one_line) -> None:
    assert serve(repository, "--provider", "tpu") == 1
    assert "provider: " in one_line()
    assert serve(repository, "--max-batch", "many") == 1
    assert "max_batch: " in one_line()


def test_a_tls_pair_that_is_missing_or_no_pem_is_one_line(repository: Path, tmp_path: Path, one_line) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    pair = ("--tls-cert", str(wrong), "--tls-key", str(wrong))
    assert serve(repository, *pair, "--log-format", "json") == 1
    assert "expected PEM" in one_line()
    assert serve(repository, "--tls-cert", str(wrong), "--tls-key", str(tmp_path / "none.pem")) == 1
    assert "none.pem: No such file" in one_line()
