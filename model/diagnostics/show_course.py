"""The chapters on the course of the training."""

from typing import Any

from model.diagnostics.chapter import Chapter
from model.diagnostics.course import PREFIX
from model.diagnostics.pictures import canvas, side_by_side, svg

Course = list[dict[str, Any]]


def learning_chapter(course: Course) -> Chapter:
    """The losses of every evaluation."""
    title = "How it learned"
    if not course:
        return Chapter(
            "learning", title, "", {}, how="Not recorded: no history.jsonl lies beside the checkpoint."
        )
    figure, axes = canvas(height=2.7)
    measured = [key for key in course[0] if key.startswith(("training_", "validation_"))]
    updates = [line["updates"] for line in course]
    for key in measured:
        axes[0][0].plot(
            updates, [line[key] for line in course], "o-", markersize=3.5, label=key.replace("_", " ")
        )
    axes[0][0].set_xlabel("updates")
    axes[0][0].set_ylabel(f"loss ({measured[0].partition('_')[2]})")
    axes[0][0].legend()
    return Chapter(
        "learning",
        title,
        "Where the held-out line turns up while the other falls, the model learns by heart; where both are level, it is done.",
        {key: [line[key] for line in course] for key in ("updates", *measured)},
        svg(figure),
        "What was written down at each evaluation; the training loss is the mean since the evaluation before.",
    )


def evolution_chapter(course: Course) -> Chapter:
    """The mean opening of every gate at each evaluation."""
    title = "How the gates changed while it learned"
    recorded = [line for line in course if any(key.startswith(PREFIX) for key in line)]
    if not recorded:
        return Chapter(
            "evolution",
            title,
            "",
            {},
            how="Not recorded: the history of this training says nothing of gates.",
        )
    names = [key.removeprefix(PREFIX) for key in recorded[0] if key.startswith(PREFIX)]
    layers = list(dict.fromkeys(name.partition(".")[0] for name in names))
    figure, axes = side_by_side(len(layers), height=2.7, sharey=True)
    updates = [line["updates"] for line in recorded]
    means = {name: [line[PREFIX + name] for line in recorded] for name in names}
    for axis, layer in zip(axes, layers, strict=True):
        for name in (name for name in names if name.startswith(f"{layer}.")):
            axis.plot(updates, means[name], "o-", markersize=3.5, label=name.partition(".")[2])
        axis.set_title(layer.replace("layer", "layer "))
        axis.set_xlabel("updates")
    axes[0].set_ylim(0, 1)
    axes[0].set_ylabel("mean opening")
    axes[-1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return Chapter(
        "evolution",
        title,
        "Lines that still move say that the network has not settled on what to remember.",
        {"updates": updates, "mean": means},
        svg(figure),
        "At each evaluation, over the same few sequences.",
    )
