"""Attention: what a decoder's output reads from all outputs of an encoder.

Axes: B batch, T decoder steps, M places of the memory, W width of a place, H hidden of the decoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

_NEVER = -1e4
"""The score of a place that holds nothing: its weight is exactly zero beside any real score. Not minus infinity, so
that a memory without any real place gives numbers, too: zeros."""


class Memory(NamedTuple):
    """What an encoder leaves for a decoder to read."""

    outputs_BMW: Tensor
    """Its outputs; zero beyond the end of a row."""
    real_BM: Tensor
    """1 for the places that a row has, 0 beyond its end; typed as the outputs."""


class LuongAttention(nn.Module):
    """Global attention with the general score, between the decoder's last layer and the head.

        score(h_t, m_s) = h_t W_a m_s
        a_t = softmax over s of score(h_t, m_s)
        c_t = sum over s of a_t(s) m_s
        h~_t = tanh(W_c [c_t; h_t])

    It does not act on the recurrence (no input feeding): the decoder's state is that of its cells alone, and a decoder
    that is trained on whole sequences runs through all steps at once.

    Args:
        width: W.
        hidden_size: H.

    Source: Luong, Pham & Manning 2015, equations 5, 7 and 8 (general).
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, width, bias=False)
        self.combine = nn.Linear(width + hidden_size, hidden_size, bias=False)
        self.register_buffer("never", torch.tensor(_NEVER))
        self.never: Tensor

    def forward(self, hidden_BTH: Tensor, memory: Memory) -> Tensor:
        """What the head reads.

        Args:
            hidden_BTH: Outputs of the decoder.
            memory: `[B, M, W]`.

        Returns:
            h~ `[B, T, H]`, in (-1, 1).
        """
        outputs_BMW, real_BM = memory
        # What is turned is small: the memory stays as it lies.
        scores_BMT = torch.matmul(outputs_BMW, self.score(hidden_BTH).transpose(1, 2))
        scores_BMT = torch.where(real_BM.unsqueeze(2) > 0.5, scores_BMT, self.never)
        context_BTW = torch.matmul(torch.softmax(scores_BMT, dim=1).transpose(1, 2), outputs_BMW)
        return torch.tanh(self.combine(torch.cat([context_BTW, hidden_BTH], dim=-1)))
