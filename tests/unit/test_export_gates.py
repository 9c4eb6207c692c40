import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from export.gates import lstm_gates_to_onnx


@given(hidden=st.integers(1, 5), width=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_blocks_i_f_g_o_become_i_o_f_c_and_rows_within_a_block_stay(hidden: int, width: int) -> None:
    rows = [f"{gate}{unit}" for gate in "ifgo" for unit in range(hidden)]
    numbered = np.repeat(np.arange(4 * hidden, dtype=np.float32)[:, None], width, axis=1)

    turned = lstm_gates_to_onnx(numbered)

    assert [rows[int(row[0])] for row in turned] == [
        f"{gate}{unit}" for gate in "iofg" for unit in range(hidden)
    ]


def test_a_bias_is_reordered_like_a_matrix() -> None:
    assert lstm_gates_to_onnx(np.array([1, 2, 3, 4], dtype=np.float32)).tolist() == [1, 4, 2, 3]
