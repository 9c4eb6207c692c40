"""The sequences that every server is given, and whether what it answered is what the model says.

A step that is lost, done twice or done on another session's state shows in the answers after it, until the network has
forgotten the difference.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from carousel.errors import CarouselError

PERIOD = 32
"""Different inputs; a session goes round them from a place of its own, so messages can be made beforehand."""
TOLERANCE = 1e-5


class Verdict(NamedTuple):
    """What a comparison found."""

    checked: int
    """Steps."""
    wrong: int
    """Further from the direct run than the tolerance, or not finite."""
    other_bits: int
    """Not bit for bit the direct run; the wrong ones are among them."""


def inputs(sessions: range, input_size: int) -> np.ndarray:
    """What the sessions are given: `[PERIOD, S, I]`, float32; step t is at t modulo PERIOD."""
    ring = np.random.default_rng(0).standard_normal((PERIOD, input_size)).astype("<f4")
    places = np.arange(PERIOD)[:, None] + np.array(sessions)
    return np.asarray(ring[places % PERIOD])


def direct(model: Path, sessions: range, steps: int) -> np.ndarray:
    """What the model gives them, run directly: `[T, S, H]`, float32."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = ort.InferenceSession(model, options)
    sizes = {port.name: port.shape[-1] for port in run.get_inputs()}
    x = inputs(sessions, sizes["x"])
    state, lengths = np.zeros((len(sessions), sizes["state"]), np.float32), np.ones(len(sessions), np.int32)
    answers = []
    for step in range(steps):
        now = x[step % PERIOD][:, None]
        y, state = run.run(None, {"x": now, "lengths": lengths, "state": state})
        answers.append(y[:, 0])
    return np.stack(answers)


def compare(answers: list[bytes], expected: np.ndarray) -> Verdict:
    """Hold the answers of some sessions, a blob `[S, H]` a step, against a direct run of at least as many steps.

    Raises:
        CarouselError: An answer has not the size that S and H ask for.
    """
    _, sessions, size = expected.shape
    blob = next((blob for blob in answers if len(blob) != sessions * size * 4), None)
    if blob is not None:
        raise CarouselError(
            f"an answer has {len(blob)} bytes, expected {sessions} x {size} float32: {sessions * size * 4}"
        )
    got = np.frombuffer(b"".join(answers), "<f4").reshape(-1, sessions, size)
    expected = expected[: len(got)]
    near = (np.abs(got - expected) <= TOLERANCE).all(-1)  # false for a NaN, too
    same = (got.view("<u4") == expected.view("<u4")).all(-1)
    return Verdict(near.size, int((~near).sum()), int((~same).sum()))
