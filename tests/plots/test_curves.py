"""Which panels the figure of a run has, where they lie, and that nothing of it is cut off."""

import types

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from trainloop.plots import draw_curves

STEPS = 120


def run(epochs=None, steps=STEPS, **columns):
    """A run with a loss that falls and a gradient that does not, and more columns."""
    step = np.arange(1, steps + 1)
    own = {"step": step, "epoch": (step + 9) // 10, "loss": 2.0 ** (-step / 20), "grad_norm": 2 + np.sin(step)}
    return types.SimpleNamespace(history={**own, **columns}, epochs=epochs or {})


def epochs(every=10, **columns):
    step = np.arange(every, STEPS + 1, every)
    falling = 1 / step
    own = {"epoch": step // every, "step": step, "seconds": step / 7, "loss": 2 * falling, "val_loss": 3 * falling}
    return {**own, "accuracy": 1 - falling, "val_accuracy": 1 - 2 * falling, **columns}


def waves(names):
    return {name: np.sin(np.arange(STEPS) + i) for i, name in enumerate(names)}


def headings(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.axison]


def panel(figure, heading):
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == heading]
    return axes


def test_panels_come_in_the_order_of_what_is_looked_at_first():
    scalars = {"damping": np.cos(np.arange(STEPS)), "step_length": np.linspace(0.5, 1, STEPS)}
    rates = {"learning_rate": np.linspace(0.2, 0.1, STEPS), "term/bc": np.ones(STEPS), "term/pde": np.ones(STEPS)}
    figure = draw_curves(run(epochs(), **scalars, **rates), "a run")
    assert headings(figure) == [
        "loss (log)",
        "terms of the loss",
        "accuracy",
        "gradient norm",
        "learning rate",
        "step length",
        "damping",
    ]
    width, height = figure.get_size_inches()
    assert (width > height, width) == (True, pytest.approx(10.8))


def test_training_and_validation_share_a_panel():
    result = run(epochs())
    loss, accuracy = (panel(draw_curves(result), name) for name in ("loss (log)", "accuracy"))
    names = ["each batch", "training", "validation"]
    for axes, columns in ((loss, [result.history["loss"]]), (accuracy, [])):
        heading = axes.get_title(loc="left").split()[0]
        expected = [*columns, result.epochs[heading], result.epochs[f"val_{heading}"]]
        assert [line.get_label() for line in axes.lines] == names[-len(expected) :]
        for line, values in zip(axes.lines, expected, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), values)


def test_an_epoch_of_one_step_is_drawn_once():
    result = run(epochs(every=1))
    axes = panel(draw_curves(result), "loss (log)")
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]


@pytest.mark.parametrize(("every", "mark"), [(1, "None"), (2, "o")])
def test_marks_are_for_few_points(every, mark):
    line, _ = panel(draw_curves(run(epochs(every))), "accuracy").lines
    assert (line.get_marker(), line.get_linewidth() < 1.5) == (mark, True)


@pytest.mark.parametrize(
    ("column", "note"),
    [
        (np.full(STEPS, 5.0), "constant x = 5"),
        (np.arange(STEPS), "only counting x"),
        (np.arange(STEPS) % 10, "only counting x"),
        (np.minimum(np.arange(STEPS), 20), "only counting x"),
        (np.arange(STEPS) // 3, "only counting x"),
        (np.where(np.arange(STEPS) < 60, np.nan, 0.25), "constant x = 0.25"),
        (2 * np.arange(STEPS), None),
        (np.arange(STEPS) % 10 + 0.5, None),
        (np.arange(STEPS)[::-1], None),
        (np.arange(STEPS) % 2 * 3, None),
    ],
)
def test_what_never_changes_or_only_counts_has_no_panel(column, note):
    figure = draw_curves(run(x=column))
    assert ("x" in "".join(headings(figure)[2:])) is (note is None)
    assert figure.get_supxlabel() == (f"Not drawn: {note}" if note else "")


def test_evaluations_are_drawn_where_a_step_takes_several():
    step = np.arange(1, STEPS + 1)
    once = {"evaluations/f": step, "evaluations/gradient": step, "evaluations/Hv": 0 * step}
    assert headings(draw_curves(run(**once))) == ["loss (log)", "gradient norm"]
    axes = panel(draw_curves(run(**{**once, "evaluations/Gv": 3 * step})), "evaluations so far")
    assert [line.get_label() for line in axes.lines] == ["f, gradient", "Gv"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), 3 * step)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.geomspace(1, 0.2, STEPS), "linear"),
        (np.geomspace(1, 0.05, STEPS), "log"),
        (np.append(np.geomspace(1, 0.05, STEPS - 1), 0), "log"),
        (np.append(np.geomspace(1, 0.05, STEPS - 1), np.nan), "log"),
        (np.append(np.geomspace(1, 0.05, STEPS - 1), -1), "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_values_span_powers_of_ten_and_says_so(values, scale):
    figure = draw_curves(run(grad_norm=values))
    axes = panel(figure, "gradient norm (log)" if scale == "log" else "gradient norm")
    assert axes.get_yscale() == scale


@pytest.mark.parametrize(("count", "columns", "rows"), [(0, 2, 1), (2, 2, 2), (3, 3, 2), (7, 3, 3), (15, 3, 6)])
def test_the_grid_has_up_to_three_columns(count, columns, rows):
    figure = draw_curves(run(**waves(f"x{i}" for i in range(count))))
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert (places[0].get_gridspec().ncols, places[0].get_gridspec().nrows) == (columns, rows)
    assert len(figure.axes) == 2 + count
    width, height = figure.get_size_inches()
    assert height < 1.42 * width


def test_what_has_no_room_is_named():
    variables = {f"norm/{kind}/layer{i}/kernel": np.ones(STEPS) + i for kind in ("g", "x", "m") for i in range(5)}
    figure = draw_curves(run(**waves(f"x{i:02d}" for i in range(20)), **variables))
    shown = headings(figure)
    assert shown[-3:] == ["norm of g", "norm of x", "norm of m"]
    assert len(shown) == 3 * 3 + 3
    assert " ".join(figure.get_supxlabel().split()).startswith("Not drawn: no room for x07, x08, ")
    assert figure.get_supxlabel().endswith("and 5 more")


def test_labels_stay_within_the_figure_and_apart():
    names = [f"inner/state/of_the_wrapped_optimizer/scalar_{i}" for i in range(4)]
    variables = {f"norm/g/a_block_with_a_long_name/convolution_{i}/kernel": np.ones(STEPS) + i for i in range(12)}
    figure = draw_curves(run(epochs(), **waves(names), **variables), "resnet20 on $data$ with " + "a, then " * 30)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, (width, height) = canvas.get_renderer(), figure.get_size_inches() * figure.dpi
    parts = [box for axes in figure.axes for box in (axes.get_tightbbox(renderer),) if axes.axison]
    parts += [axes.get_legend().get_window_extent(renderer) for axes in figure.axes if not axes.axison]
    title = figure._suptitle.get_window_extent(renderer)
    for box in [*parts, title]:
        assert (box.x0 >= 0, box.y0 >= 0, box.x1 <= width, box.y1 <= height) == (True,) * 4
    for i, box in enumerate(parts):
        assert box.y1 < title.y0
        assert not any(box.overlaps(other) for other in parts[i + 1 :])


def test_phases_are_a_light_line_in_every_panel():
    figure = draw_curves(run(phase=np.arange(STEPS) // 50))
    for axes in figure.axes:
        ends = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert ends == [50.5, 100.5]


def test_a_run_that_failed_at_once_is_drawn():
    for history in ({}, {"step": np.array([1]), "loss": np.array([np.nan])}):
        figure = draw_curves(types.SimpleNamespace(history=history, epochs={}))
        assert figure.png().startswith(b"\x89PNG")
        assert headings(figure) == ["loss"]
