"""One sequence in, another one out: an encoder reads the first, a decoder that starts where it ended writes the second.

Axes: B batch, T steps, E embedding, H hidden, M places of the memory, W width of a place, V target vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.attention import LuongAttention, Memory
from model.bidirectional import Bidirectional, BothStates
from model.layer import Conditions
from model.model_recipe import CellRecipe, PlainCell
from model.stack import Stack, StackState

_LSTM, _NOTHING = PlainCell(kind="lstm"), Conditions()


class EncoderDecoder(nn.Module):
    """Both halves have the same cell, width and number of layers; a layer of the decoder starts where its twin ended.

    Where the encoder reads both ways, a linear map of each layer joins what its two readers came to. With attention
    the decoder's outputs also read the outputs of the encoder at all places, which they need for long sequences.

    Args:
        source_symbols: Size of the vocabulary that is read.
        target_symbols: V, of the one that is written; a symbol that begins and one that ends a sequence are among them.
        embedding: E, of both vocabularies.
        hidden: Units of every cell.
        layers: Of each half.
        cell: The recurrence of all layers.
        attention: Read the encoder's outputs, too.
        both_ways: The encoder reads from both ends.
        conditions: What acts on every layer.

    Raises:
        CellError: the cell cannot have these sizes, or the conditions ask for something that it has not.

    Source: Sutskever, Vinyals & Le 2014; Cho et al. 2014. Attention: `model.attention`.
    """

    def __init__(
        self,
        source_symbols: int,
        target_symbols: int,
        *,
        embedding: int,
        hidden: int,
        layers: int = 1,
        cell: CellRecipe = _LSTM,
        attention: bool = False,
        both_ways: bool = False,
        conditions: Conditions = _NOTHING,
    ) -> None:
        super().__init__()
        kind = Bidirectional if both_ways else Stack
        self.source = nn.Embedding(source_symbols, embedding)
        self.encoder = kind(embedding, hidden, layers, cell=cell, conditions=conditions)
        self.target = nn.Embedding(target_symbols, embedding)
        self.decoder = Stack(embedding, hidden, layers, cell=cell, conditions=conditions)
        self.bridges = nn.ModuleList()
        """Where the encoder reads both ways: from both states of a part to one, in the order of the decoder's state."""
        for part in (part for state in self.decoder.initial_state(1) for part in state):
            if both_ways:
                self.bridges.append(nn.Linear(2 * part.shape[1], part.shape[1]))
        self.attention = LuongAttention(self.encoder.width, self.decoder.width) if attention else None
        self.head = nn.Linear(self.decoder.width, target_symbols)

    def forward(self, source_BT: Tensor, tokens_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Write with the right symbols given, as in training.

        Args:
            source_BT: int64, what is read.
            tokens_BT: int64, what is written, a step late: it begins with the symbol that begins.
            lengths_B: int64, the steps of each source; None: all of them, which is faster.

        Returns:
            Logits of the symbol that follows each one given, `[B, T, V]`.
        """
        state, memory = self.prime(source_BT, lengths_B)
        return self.decode(tokens_BT, state, memory)[0]

    def prime(self, source_BT: Tensor, lengths_B: Tensor | None = None) -> tuple[StackState, Memory | None]:
        """Read a sequence.

        Args:
            source_BT: int64.
            lengths_B: int64, the steps of each row, 1 to T; None: T.

        Returns:
            The decoder's state at its start, and what its attention reads.
        """
        embedded_TBE = self.source(source_BT.T)
        read_TBW, ends = self.encoder(
            embedded_TBE, lengths_B=lengths_B, state=self.encoder.initial_state(len(source_BT))
        )
        state = self._joined(ends) if isinstance(self.encoder, Bidirectional) else ends
        if self.attention is None:
            return state, None
        if lengths_B is None:
            real_BM = torch.ones_like(source_BT, dtype=read_TBW.dtype)
        else:
            places_M = torch.arange(source_BT.shape[1], device=source_BT.device)
            real_BM = (places_M < lengths_B.unsqueeze(1)).to(read_TBW.dtype)
        return state, Memory(read_TBW.transpose(0, 1) * real_BM.unsqueeze(2), real_BM)

    def decode(
        self, tokens_BT: Tensor, state: StackState, memory: Memory | None
    ) -> tuple[Tensor, StackState]:
        """Write on.

        Args:
            tokens_BT: int64, the symbols before those to be written.
            state: As `prime` or the call before gave it; not modified.
            memory: As `prime` gave it.

        Returns:
            Logits `[B, T, V]` and the state after the last step.
        """
        y_TBH, state = self.decoder(self.target(tokens_BT.T), state)
        y_BTH = y_TBH.transpose(0, 1)
        if self.attention is not None:
            assert memory is not None
            y_BTH = self.attention(y_BTH, memory)
        return self.head(y_BTH), state

    def _joined(self, ends: BothStates) -> StackState:
        """The decoder's state: each part a linear map of the same part of both readers."""
        bridges = iter(self.bridges)

        def joined(start: Any, end: Any) -> Any:
            parts = (next(bridges)(torch.cat(pair, dim=-1)) for pair in zip(start, end, strict=True))
            return type(start)(*parts)

        return tuple(joined(start, end) for start, end in ends)
