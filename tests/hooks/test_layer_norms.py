"""Norms by layer: their values, their names, and where they are shown."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy

from trainloop import SAM, Adam, ArrayData, LayerNorms, Momentum, RunResult, SimpleGD, Status, TestGD, TrainLoop
from trainloop.columns import by_kind
from trainloop.hooks.display import PlainLines
from trainloop.plots.curves import draw_curves
from trainloop.plots.panels import panels_of
from trainloop.vectors import linalg

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

VARIABLES = ("hidden/kernel", "hidden/bias", "out/kernel", "out/bias")


def net():
    seed_generators()
    layers = [keras.layers.Input((6,)), keras.layers.Dense(5, "tanh", name="hidden"), keras.layers.Dense(3, name="out")]
    return keras.Sequential(layers, name="net")


def run(optimizer, hooks, steps=3, model=None, **options):
    loop = TrainLoop(model or net(), optimizer, crossentropy(), hooks=hooks, **options)
    return loop.run(ArrayData(*blobs(), 24, shuffle=False), steps=steps)


def norms_by_hand(steps):
    """Heavy ball in NumPy: rows {column: value}."""
    model, (x, y), velocity, rows = net(), blobs(), None, []
    for i in range(steps):
        batch = slice(24 * i, 24 * i + 24)
        with tf.GradientTape() as tape:
            f = crossentropy()(y[batch], model(x[batch]))
        gs = [g.numpy() for g in tape.gradient(f, [v.value for v in model.trainable_variables])]
        velocity = [-0.1 * g + (0.9 * v if i else 0) for g, v in zip(gs, velocity or gs, strict=True)]
        row = {}
        for name, v, g, step in zip(VARIABLES, model.trainable_variables, gs, velocity, strict=True):
            values = {"x": v.numpy(), "g": g, "step": step, "velocity": step}
            row |= {f"norm/{kind}/net/{name}": np.sqrt(np.sum(value**2)) for kind, value in values.items()}
        g, s = (np.concatenate([np.ravel(part) for part in parts]) for parts in (gs, velocity))
        row["angle/step"] = np.degrees(np.arccos(min(1, -g @ s / np.linalg.norm(g) / np.linalg.norm(s))))
        rows.append(row)
        for v, step in zip(model.trainable_variables, velocity, strict=True):
            v.assign(v + step)
    return rows


def test_norms_are_those_of_every_variable():
    history = run(Momentum(0.1), [LayerNorms(of=("x", "g", "step", "velocity"))]).history
    rows = norms_by_hand(3)
    assert {name for name in history if name.startswith(("norm/", "angle/"))} == set(rows[0])
    for name in rows[0]:
        np.testing.assert_allclose(history[name], [row[name] for row in rows], rtol=1e-9, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_float32_norms_neither_vanish_nor_overflow(scale, float32):
    model = net()
    model.set_weights([np.full(w.shape, scale, "float32") for w in model.get_weights()])
    history = run(SimpleGD(0.1), [LayerNorms(of=["x"])], 1, model, eager=True).history
    np.testing.assert_allclose(history["norm/x/net/hidden/kernel"], scale * np.sqrt(30), rtol=1e-6)


@pytest.mark.parametrize(
    ("u", "v", "degrees"),
    [
        ([1, 0, 0], [2, 0, 0], 0),
        ([1, 0, 0], [0, 1e-20, 0], 90),
        ([1, 1, 0], [-3, -3, 0], 180),
        ([1, 0, 0], [1, 1e-6, 0], np.degrees(np.arctan(1e-6))),
        ([0, 0, 0], [1, 0, 0], np.nan),
        ([1, 0, 0], [np.inf, 0, 0], np.nan),
    ],
)
def test_angles_have_their_digits_everywhere(u, v, degrees):
    for dtype, digits in (("float32", 1e-6), ("float64", 1e-12)):
        angle = linalg.angle(tf.constant(u, dtype), tf.constant(v, dtype))
        np.testing.assert_allclose(angle, degrees, rtol=digits)


def test_names_are_checked():
    for wrong in ((), "x", ("x", 3), ("x", "x")):
        with pytest.raises(ValueError, match="of must be a list of distinct names such as"):
            LayerNorms(of=wrong)
    with pytest.raises(ValueError, match=r"one of x, g, step, m, v; received 'stp' \(did you mean 'step'\?\)"):
        run(Adam(), [LayerNorms(of=("stp",))])
    with pytest.raises(ValueError, match=r"one of x, g, step, inner/velocity; .*did you mean 'inner/velocity'"):
        run(SAM(Momentum()), [LayerNorms(of=("velocity",))])
    with pytest.raises(ValueError, match="one of x, g, step; received 'B'"):
        run(TestGD(), [LayerNorms(of=("B",))])


def columns(kinds, variables):
    return [f"norm/{kind}/{variable}" for kind in kinds for variable in variables]


def test_columns_find_their_panels():
    names = [*columns(["x", "inner/velocity"], ["net/a/kernel", "net/b"]), "angle/step", "loss", "grad_norm"]
    assert by_kind(names) == {
        "x": {"net/a/kernel": names[0], "net/b": names[1]},
        "inner/velocity": {"net/a/kernel": names[2], "net/b": names[3]},
    }
    assert list(by_kind(columns(["velocity"], ["net/a"]))) == ["velocity"]


def test_pictures_have_a_panel_for_each_kind_and_the_largest_layers():
    variables = [f"layer{i:02d}/kernel" for i in range(20)]
    history = {"step": np.arange(1, 4), "loss": np.ones(3), "angle/step": np.array([0.0, np.nan, 30.0])}
    history |= {name: np.full(3, 1.0 + i % 20) for i, name in enumerate(columns(["x", "g"], variables))}
    history["norm/g/layer19/kernel"] = np.array([np.nan, 0.0, 100.0])
    result = RunResult(Status.FINISHED, "", history, {}, 3, 1.0, {})
    labels = {panel.heading: panel.curves for panel in panels_of(result).shown}
    assert list(labels) == ["loss", "angle of the step to -g, degrees"] + [
        f"norm of {kind}, largest 12 of 20 by mean" for kind in ("x", "g")
    ]
    assert [name for name, *_ in list(labels.values())[2]] == variables[8:]
    looks = {(style["color"], style["linestyle"]) for *_, style in list(labels.values())[3]}
    assert len(looks) == 12
    assert draw_curves(result).png().startswith(b"\x89PNG")


def test_displays_are_not_flooded():
    said = []
    run(SimpleGD(0.1), [PlainLines(said.append, every_seconds=0), LayerNorms()], eager=True)
    assert said
    assert not [line for line in said if "norm/" in line or "angle/" in line]
