"""Show what a model promises, and whether its graph agrees.

A model is given by its folder, of which the newest version is taken, by a version's folder or by a file:

  carousel inspect models/stdlib
  carousel inspect models/stdlib/1
  carousel inspect model.onnx --json
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cli.table import print_table

if TYPE_CHECKING:
    from carousel.contract import Contract, Port
    from export.file import ModelFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel inspect` understands."""
    parser.add_argument("model", type=Path, help="a model file, a version's folder or a model's folder")
    parser.add_argument("--json", action="store_true", help="print the contract as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the summary or the contract.

    Raises:
        CarouselError: the file is no model, or its graph does not keep its contract.
    """
    from export.file import read_models
    from export.repository import find_model
    from export.warnings import warnings

    first, *others = read_models(find_model(args.model))
    if args.json:
        print(json.dumps(json.loads(first.contract.to_json()), indent=2))
        return 0
    for found in (first, *others):
        _show(found)
        print()
        print_table([("warning", line) for line in warnings(found)] or [("warnings", "none")])
        print()
    return 0


def _show(found: "ModelFile") -> None:
    contract = found.contract
    print(found.path)
    print_table([*_file(found), *_promises(contract)])
    print()
    ports = [("input", port) for port in contract.inputs] + [("output", port) for port in contract.outputs]
    heading = ("port", "name", "for each", "numbers", "meaning", "symbols", "feeds")
    print_table([heading, *(_port(*entry) for entry in ports)])
    print()
    if contract.segments:
        segments = [(segment.name, str(segment.start), str(segment.size)) for segment in contract.segments]
        print_table([("state segment", "start", "size"), *segments])
        print()
    print_table(_provenance(contract))


def _file(found: "ModelFile") -> list[tuple[str, str]]:
    counted = found.operators.most_common()
    return [
        ("file", f"{found.size_bytes:,} bytes, {found.parameters:,} parameters"),
        (
            "graph",
            f"opset {_opsets(found)}, IR {found.model.ir_version}; names, types and shapes agree with the contract",
        ),
        ("operators", ", ".join(f"{name} {count}" for name, count in counted)),
    ]


def _promises(contract: "Contract") -> list[tuple[str, str]]:
    cuts = "any batch and any chunking" if contract.kind == "step" else "any batch"
    invariant = f"yes, bit-identical for {cuts} on a CPU" if contract.invariant else "no"
    return [
        ("contract", f"format {contract.format}, {contract.kind} graph in {contract.form} form"),
        ("task", contract.task),
        ("recurrence", contract.recurrence),
        *_state(contract),
        _lengths(contract),
        ("invariant", invariant),
        ("made for", f"{contract.runs_on}, {contract.precision}"),
        ("observed", ", ".join(contract.observed.statistics) if contract.observed else "nothing"),
        ("signature", f"layout {contract.signature.layout}, lineage {contract.signature.lineage}"),
    ]


def _state(contract: "Contract") -> list[tuple[str, str]]:
    if contract.primes is not None:
        return [("begins", f"sessions of layout {contract.primes.layout}, lineage {contract.primes.lineage}")]
    if not contract.planes:
        return [("state", "none: it needs all of its input at once")]
    planes = [
        f"{p.dtype}[{p.size}] a session, {p.input} to {p.output}"
        if p.output
        else f"{p.input} {p.dtype}[{p.size}], read only"
        for p in contract.planes
    ]
    start = "zeros" if contract.initial is None else "a row in the contract"
    return [("state", "; ".join(planes)), ("start", start)]


def _lengths(contract: "Contract") -> tuple[str, str]:
    if not contract.lengths:
        return "nodes", f"1 to {contract.max_steps}, children before their parents"
    if contract.kind == "step" and contract.max_steps == 1:
        return "lengths", f"{contract.lengths}, one step a run"
    return "lengths", f"{contract.lengths}, 1 to {contract.max_steps} steps"


def _provenance(contract: "Contract") -> list[tuple[str, str]]:
    origin = contract.provenance
    return [
        ("created", origin.created),
        ("revision", origin.revision),
        ("data", f"sha256 {origin.data_sha256}"),
        *(("metric", f"{name} = {value:g}") for name, value in origin.metrics.items()),
        *(("recipe", f"{name} = {json.dumps(value)}") for name, value in origin.recipe.items()),
    ]


def _port(kind: str, port: "Port") -> tuple[str, ...]:
    symbols = "" if port.vocabulary is None else f"{len(port.vocabulary)}"
    if port.unknown is not None:
        symbols += f", unknown is {port.unknown}"
    each, numbers = " and ".join(port.axes), f"{port.dtype}{list(port.shape)}"
    return kind, port.name, each, numbers, port.meaning, symbols, port.feeds or ""


def _opsets(found: "ModelFile") -> str:
    return ", ".join(f"{entry.domain} {entry.version}".strip() for entry in found.model.opset_import)
