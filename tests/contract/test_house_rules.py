"""Rules of the house that a machine can hold: sizes, generated code, tables of help."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("carousel", "model", "export", "service", "bench", "cli", "examples")
MODULES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in path.name
]
MODULE_LINES = 250
FUNCTION_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(node: ast.AST) -> int:
    """Lines of all docstrings in a tree, those of attributes included."""
    return sum(
        (statement.end_lineno or 0) - statement.lineno + 1
        for child in ast.walk(node)
        if isinstance(body := getattr(child, "body", None), list)
        for statement in body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_small_enough_to_read(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) - docstring_lines(tree) <= MODULE_LINES
    for function in functions(tree):
        lines = (function.end_lineno or 0) - function.lineno + 1 - docstring_lines(function)
        assert lines <= FUNCTION_LINES, f"{function.name}: {lines} lines"


def test_generated_code_is_what_the_proto_file_says(tmp_path: Path) -> None:
    proto = ["-Icarousel/wire=protos/carousel/v1", "carousel/wire/carousel.proto"]
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *proto, *out], cwd=ROOT, check=True)
    made = sorted((tmp_path / "carousel" / "wire").iterdir())
    assert len(made) == 3
    for path in made:
        assert path.read_text() == (ROOT / "carousel" / "wire" / path.name).read_text(), "run `make protos`"


def test_imports_follow_the_floors_of_the_house() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
