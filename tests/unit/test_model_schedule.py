"""The learning rate over a training."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from model.schedule import one_cycle


def test_the_peak_lies_where_the_warm_up_ends() -> None:
    rates = [one_cycle(k / 1000, 0.3) for k in range(1001)]
    assert max(rates) == rates[300] == 1
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_the_rate_starts_low_and_ends_lower() -> None:
    assert one_cycle(0, 0.3) == pytest.approx(1 / 25)
    assert one_cycle(1, 0.3) == pytest.approx(1e-4)


def test_it_is_torch_s_one_cycle() -> None:
    # theirs ends its slopes one update early: total_steps counts updates, both ends included
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = OneCycleLR(optimizer, 1.0, total_steps=101, pct_start=0.31 * 100 / 101, final_div_factor=400)
    rates = []
    for _ in range(100):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates == pytest.approx([one_cycle(k / 100, 0.3) for k in range(100)])
