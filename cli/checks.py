"""The table of what was measured on a model, as `export` and `verify` print it."""

from typing import TYPE_CHECKING

from cli.table import print_table

if TYPE_CHECKING:
    from export.report import Check, Verification


def print_checks(verification: "Verification") -> None:
    """Print every check: what was measured, what is allowed, and how it went."""
    checks = dict.fromkeys((*verification.required, *verification.invariance))
    print_table(
        [
            ("check", "measured", "allowed", "result", ""),
            *((c.check, _number(c.measured), _number(c.allowed), _result(c), c.detail) for c in checks),
        ]
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def _result(check: "Check") -> str:
    if check.allowed is None:
        return "told"
    return "passed" if check.passed else "FAILED"
