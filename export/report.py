"""What verification found."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Check:
    """One line of the table: something measured beside what is allowed."""

    check: str
    measured: float
    allowed: float | None
    """None: told, not judged."""
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the measure is a number within what is allowed."""
        return self.allowed is None or self.measured <= self.allowed

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.check}: {self.measured:g}, allowed {self.allowed:g}{detail}"


@dataclass(frozen=True)
class Verification:
    """Everything measured on one graph."""

    required: tuple[Check, ...]
    """Without these no file is written."""
    invariance: tuple[Check, ...]
    """These decide what the contract says about bit-identical results."""

    def joined(self, other: "Verification", name: str) -> "Verification":
        """This one and another, whose checks get a name in front."""
        required, invariance = (
            tuple(replace(check, check=f"{name}: {check.check}") for check in checks)
            for checks in (other.required, other.invariance)
        )
        return Verification((*self.required, *required), (*self.invariance, *invariance))

    @property
    def failures(self) -> tuple[Check, ...]:
        """The required checks that did not pass."""
        return tuple(check for check in self.required if not check.passed)

    @property
    def invariant(self) -> bool:
        """Whether every comparison of batches and chunks was made and found no differing bit."""
        return bool(self.invariance) and all(check.passed for check in self.invariance)
