"""Which state of this code is running."""

import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def revision() -> str:
    """The commit as git describes it, with `-dirty` for changed files; empty outside a git checkout of ours."""
    # Installed inside somebody else's checkout, git would describe theirs.
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
