"""Where a GPU is, tests of the arena run on it, too; elsewhere they are skipped and say why."""

import pytest

from service.arena_graphs import gather_graph
from service.runtime import RuntimeUnavailableError, make_session


def why_not() -> str:
    """Why nothing can run on CUDA here; empty: it can."""
    try:
        make_session(gather_graph("float32", 1), "cuda", 1)
    except RuntimeUnavailableError as error:
        return str(error)
    return ""


_WHY_NOT = why_not()
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(bool(_WHY_NOT), reason=f"no GPU: {_WHY_NOT}")]
)
PROVIDERS = ["cpu", CUDA]
