"""ONNX's numbers for the dtypes of a contract."""

from typing import get_args

import numpy as np
from onnx import helper

from carousel.contract import DType

ELEMENT_TYPES: dict[str, int] = {
    dtype: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in get_args(DType)
}
