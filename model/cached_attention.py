"""A Transformer layer that reads a step at a time and keeps keys and values: what a recurrent cell is compared with.

Axes: B batch, T steps of context, D width, N heads of the width d.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cache(NamedTuple):
    """Room for the keys and values of T steps, written in place."""

    keys_BTD: Tensor
    values_BTD: Tensor


def cached_step(layer: nn.TransformerEncoderLayer, x_BD: Tensor, cache: Cache, step: int) -> Tensor:
    """The layer's output for one more step, which attends to itself and to all before it.

    Args:
        layer: Normalises first, activates with ReLU and drops nothing.
        x_BD: The input `[B, D]`.
        cache: Holds the steps before this one; this one is added to it.
        step: How many those are.

    Source: Vaswani et al. 2017; normalisation first: Xiong et al. 2020.
    """
    attention = layer.self_attn
    projected = functional.linear(layer.norm1(x_BD), attention.in_proj_weight, attention.in_proj_bias)
    query_BD, cache.keys_BTD[:, step], cache.values_BTD[:, step] = projected.chunk(3, dim=-1)
    query, keys, values = (
        part.view(len(x_BD), -1, attention.num_heads, attention.head_dim).transpose(1, 2)
        for part in (query_BD, cache.keys_BTD[:, : step + 1], cache.values_BTD[:, : step + 1])
    )
    attended_BN1d = functional.scaled_dot_product_attention(query, keys, values)
    x_BD = x_BD + attention.out_proj(attended_BN1d.flatten(1))
    fed_BD: Tensor = layer.linear2(torch.relu(layer.linear1(layer.norm2(x_BD))))
    return x_BD + fed_BD
