"""Random histories against a trivial sequential model; see `History` and `World`. A failing seed replays exactly."""

import pytest

from tests.simulation.history import History

HISTORIES = 200


@pytest.mark.parametrize("block", range(10))
def test_every_history_ends_as_if_each_step_had_been_applied_once_in_order_alone(block: int) -> None:
    for seed in range(block * HISTORIES // 10, (block + 1) * HISTORIES // 10):
        try:
            History(seed).run()
        except Exception as error:
            error.add_note(f"replay it with History({seed}).run()")
            raise
