"""A picture of `carousel bench cuda`: steps a second against the size of the batch, ours and torch's."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt

from bench.cuda import Speed


def draw_speeds(speeds: Sequence[Speed], title: str, file: Path) -> None:
    """Draw a line a model: solid is ours, dashed is torch's with everything on the device.

    Args:
        speeds: What was measured.
        title: The device, for one.
        file: Where the picture goes; its suffix says which kind.
    """
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    models = dict.fromkeys((one.hidden, one.layers) for one in speeds)
    for number, (hidden, layers) in enumerate(models):
        of_model = [one for one in speeds if (one.hidden, one.layers) == (hidden, layers)]
        batches, colour = [one.batch for one in of_model], f"C{number}"
        axes.plot(batches, [one.rate for one in of_model], "o-", color=colour, label=f"H={hidden} L={layers}")
        axes.plot(batches, [one.batch / median(one.resident) for one in of_model], "--", color=colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("sessions in a batch")
    axes.set_ylabel("steps a second; dashed: torch.nn.LSTM, everything on the device")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)
