import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.gates import in_order
from model.cells.lstm import LSTM

ONNX = ("input", "output", "forget", "candidate")


def numbered(hidden: int, width: int) -> torch.Tensor:
    return torch.arange(4.0 * hidden)[:, None].expand(-1, width)


@given(hidden=st.integers(1, 5), width=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_blocks_i_f_g_o_become_i_o_f_c_and_rows_within_a_block_stay(hidden: int, width: int) -> None:
    rows = [f"{gate}{unit}" for gate in "ifgo" for unit in range(hidden)]

    turned = in_order(LSTM(1, hidden), numbered(hidden, width), ONNX)

    assert [rows[int(row[0])] for row in turned] == [
        f"{gate}{unit}" for gate in "iofg" for unit in range(hidden)
    ]


def test_a_bias_is_reordered_like_a_matrix() -> None:
    assert in_order(LSTM(1, 1), torch.tensor([1.0, 2, 3, 4]), ONNX).tolist() == [1, 4, 2, 3]


def test_a_minus_negates_a_gate_which_then_is_one_minus_what_it_was() -> None:
    z = torch.tensor([0.3, -1.2, 0.5, 2.0])
    (negated,) = in_order(LSTM(1, 1), z, ("-forget",))
    np.testing.assert_allclose(torch.sigmoid(torch.tensor(negated)), 1 - torch.sigmoid(z[1]), rtol=1e-6)
