"""Checkpoints become verified, stateful ONNX step graphs; `carousel inspect` reads them back.

The way of a checkpoint: `characters` draws the graph (`row` and `lstm` are its parts), `verify` compares it with
torch and with itself, `door` writes what passed. Axes in names: T time, B batch, E embedding, H hidden, V vocabulary,
S state row.
"""
