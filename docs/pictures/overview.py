"""The picture at the top of the README: what becomes of a batch, and the loss of a run.

    python docs/pictures/overview.py docs/overview.png

The curves are fits of one network to 1 / (1 + 25 x^2), with a state of two vectors (Adam), of twenty, and of a matrix.
"""

import itertools
import sys

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

import trainloop as tl

INK, SOFT, BLUE, ORANGE = "#22303c", "#8a97a3", "#0072b2", "#d55e00"
EVALUATIONS = 2_000
RATE = 0.1  # with a cosine decay the best of 0.01, 0.03, 0.1 and 0.3 for Adam on this problem
LAYERS = (1.0, 2.2, 3.6, 0.8, 1.4)  # sizes of the variables, not to scale


def box(axes, x, y, width, height, text, color="#eef2f5", **options):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor=INK, linewidth=1))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, **options)


def arrow(axes, *points, label="", above=0.22):
    for start, end in itertools.pairwise(points):
        style = "-|>" if end is points[-1] else "-"
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=11, color=INK, linewidth=1.1,
                                       shrinkA=0, shrinkB=0))  # fmt: skip
    if label:
        (x0, y0), (x1, y1) = points[0], points[1]
        axes.text((x0 + x1) / 2, (y0 + y1) / 2 + above, label, ha="center", color=INK, fontsize=9)


def vector(axes, x, y, name, color, note):
    """A vector as the pieces that come from the variables, end to end."""
    top, scale = y, 3.4 / sum(LAYERS)
    for i, size in enumerate(LAYERS):
        top -= size * scale
        axes.add_patch(Rectangle((x, top), 0.42, size * scale, facecolor=color, alpha=0.25 + 0.13 * i, edgecolor=INK,
                                 linewidth=0.7))  # fmt: skip
    axes.text(x + 0.21, y + 0.18, name, ha="center", color=INK, fontsize=13, fontstyle="italic")
    axes.text(x + 0.21, top - 0.34, note, ha="center", color=SOFT, fontsize=9)


def draw_flow(axes):
    axes.set(xlim=(0, 10.4), ylim=(-0.4, 5.2))
    axes.axis("off")
    for i in range(3):
        axes.add_patch(Rectangle((0.15 + 0.12 * i, 2.1 + 0.12 * i), 0.9, 0.9, facecolor="#eef2f5", edgecolor=INK,
                                 linewidth=0.8))  # fmt: skip
    axes.text(0.84, 2.79, "batch", ha="center", va="center", color=INK)
    box(axes, 1.9, 1.9, 1.5, 1.5, "network\nand loss")
    arrow(axes, (1.32, 2.65), (1.9, 2.65))
    vector(axes, 4.45, 4.3, "g", ORANGE, "[n]")
    arrow(axes, (3.4, 2.65), (4.4, 2.65), label="tape")
    box(axes, 5.75, 1.9, 2.3, 1.5, "update(x, g, state)", color="#e3eef7", family="monospace", fontsize=8.5)
    axes.text(6.9, 3.62, "state: vectors [n], matrices [n, n]", ha="center", color=SOFT, fontsize=9)
    arrow(axes, (4.93, 2.65), (5.7, 2.65))
    vector(axes, 9.15, 4.3, "x", BLUE, "[n]")
    arrow(axes, (8.05, 2.65), (9.1, 2.65))
    arrow(axes, (9.36, 0.42), (9.36, -0.25), (2.65, -0.25), (2.65, 1.9))
    axes.text(6.0, -0.12, "assigned to the variables, in the same compiled step", ha="center", color=SOFT, fontsize=9)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(64, "tanh"), keras.layers.Dense(1)])


def draw_curves(axes):
    x = np.linspace(-1, 1, 500)[:, None]
    points = x, 1 / (1 + 25 * x**2)
    decay = keras.optimizers.schedules.CosineDecay(RATE, EVALUATIONS)
    for optimizer, color in ((tl.Adam(decay), SOFT), (tl.LBFGS(), ORANGE), (tl.SSBroyden(), BLUE)):
        loop = tl.TrainLoop(network(), optimizer, "mse")
        history = loop.run(tl.ArrayData(*points, batch_size=None), steps=EVALUATIONS, verbose=0).history
        evaluations = history.get("evaluations/f", history["step"])
        shown = evaluations <= EVALUATIONS
        axes.plot(evaluations[shown], history["loss"][shown], color=color, linewidth=1.4)
        end = EVALUATIONS, history["loss"][shown][-1]
        axes.annotate(f" {type(optimizer).__name__}", end, color=color, va="center")
    axes.set(
        yscale="log",
        xlabel="evaluations of f and g",
        xlim=(0, EVALUATIONS),
        xticks=(0, 1_000, 2_000),
        title="a fit to Runge's function, n = 193",
    )
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def main(path):
    keras.config.set_floatx("float64")
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 10, "axes.edgecolor": INK, "axes.labelcolor": INK})
    figure, (flow, curves) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=(2.5, 1), layout="constrained")
    draw_flow(flow)
    draw_curves(curves)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
