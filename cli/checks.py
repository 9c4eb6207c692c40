"""The table of what was measured on a model, as `export` and `verify` print it."""

from typing import TYPE_CHECKING

from cli.table import print_table

if TYPE_CHECKING:
    from export.report import Check, Verification


def print_checks(verification: "Verification") -> None:
    """Print every check once: what was measured, what is allowed, and how it went.

    One that only decides about a promise does not fail: its result is `no` where the promise cannot be made.
    """
    required = {check.check for check in verification.required}
    deciding = [check for check in verification.invariance if check.check not in required]
    print_table(
        [
            ("check", "measured", "allowed", "result", ""),
            *(_row(check, "FAILED") for check in verification.required),
            *(_row(check, "no") for check in deciding),
        ]
    )


def _row(check: "Check", otherwise: str) -> tuple[str, ...]:
    return (
        check.check,
        _number(check.measured),
        _number(check.allowed),
        _result(check, otherwise),
        check.detail,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def _result(check: "Check", otherwise: str) -> str:
    if check.allowed is None:
        return "told"
    return "passed" if check.passed else otherwise
