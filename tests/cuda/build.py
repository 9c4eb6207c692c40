"""Builds the device of host memory: one library, under the names by which ONNX Runtime's CUDA provider finds CUDA."""

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
LINKED = ["libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcuda.so.1"]
LOADED = "libcudnn.so.9"
"""By its functions' names, when the first of them is called."""
COMPILE = ["g++", "-std=c++20", "-O2", "-fPIC", "-Wall", "-Wextra", "-c"]
NOBODY = 'extern "C" void {0}() {{ stop("nobody plays {0}"); }}\n'


def wanted(provider: Path) -> dict[str, set[str]]:
    """Functions of CUDA that the provider links, by the version that it asks for: the name of a library."""
    found = defaultdict(set)
    for line in output_of("nm", "-D", "--undefined-only", str(provider)):
        function, _, library = line.split()[-1].partition("@")
        if library.lstrip("@") in LINKED or function.startswith("cuTensor"):
            found[library.lstrip("@") or "libcuda.so.1"].add(function)
    return found


def played(objects: list[Path]) -> set[str]:
    return {
        line.split()[-1]
        for line in output_of("nm", "--defined-only", "-g", *map(str, objects))
        if " T " in line
    }


def version_script(linked: dict[str, set[str]]) -> str:
    """Each library's functions under its version, cuDNN's and those of the tests; the rest is nobody's business."""
    blocks = {**{library: sorted(functions) for library, functions in linked.items()}, LOADED: ["cudnn*"]}
    text = "".join(f"{library} {{ global: {'; '.join(names)}; }};\n" for library, names in blocks.items())
    return text + "tests { global: device_count; local: *; };\n"


def compile_all(sources: list[Path], include: Path, out: Path) -> list[Path]:
    """All at once: there are few of them."""
    objects = [out / f"{source.stem}.o" for source in sources]
    running = [
        subprocess.Popen([*COMPILE, f"-I{HERE}", f"-I{include}", str(source), "-o", str(made)])
        for source, made in zip(sources, objects, strict=True)
    ]
    if {one.wait() for one in running} != {0}:
        sys.exit("tests/cuda/build.py: the device does not compile")
    return objects


def link(objects: list[Path], script: Path, library: Path) -> None:
    flags = [f"-Wl,--version-script={script}", "-Wl,--no-undefined"]
    if subprocess.run(["g++", "-shared", *objects, "-o", library, *flags], check=False).returncode:
        sys.exit("tests/cuda/build.py: the device does not link")


def output_of(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def build(site: Path, out: Path) -> None:
    """Put the libraries into `out`; `site` has the provider and the headers of CUDA's runtime."""
    out.mkdir(parents=True, exist_ok=True)
    include = site / "nvidia/cu13/include"
    objects = compile_all(sorted(HERE.glob("*.cpp")), include, out)
    linked = wanted(site / PROVIDER)
    rest, script, library = out / "rest.cpp", out / "versions.map", out / "device.so"
    missing = sorted(set().union(*linked.values()) - played(objects))
    rest.write_text("[[noreturn]] void stop(const char *, ...);\n" + "".join(map(NOBODY.format, missing)))
    objects += compile_all([rest], include, out)
    script.write_text(version_script(linked))
    link(objects, script, library)
    # Links, since the loader takes files of one inode for one library.
    for name in [*LINKED, LOADED]:
        (out / name).unlink(missing_ok=True)
        os.link(library, out / name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "tests/cuda/build.py: expected the folder of the provider and CUDA's headers, and that of the libraries"
        )
    if not shutil.which("g++"):
        sys.exit("tests/cuda/build.py: expected g++, got none on the path")
    build(Path(sys.argv[1]), Path(sys.argv[2]))
