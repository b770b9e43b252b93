"""From names to data, model, loss and metrics that fit together.

    data                            loss unless another is asked for        metrics
    classes                         crossentropy from logits                accuracy
    tokens                          the same at every position              accuracy at every position
    regression                      mean squared error                      mean absolute error
    images, and a model that puts   crossentropy of every pixel from        squared error of an image
    out images: an autoencoder      logits; the targets are the images
    points of terms by name         none: residuals, or a loss of       none
                                    (model, batch)

Where `keras.config.floatx` is float64, so are the data.

Everything is tried on a few samples, outside of compiled code, so that errors come before a run begins.
"""

import dataclasses
import os

import keras
import numpy as np
import tensorflow as tf

from trainloop.data.points import Points
from trainloop.data.split import DataSplit
from trainloop.loop.metrics import ReconstructionError
from trainloop.objectives import losses
from trainloop.runs import plugins, user_code
from trainloop.types import Loss, LossFn, Residuals

# What is trained on data of a kind unless another model is asked for.
DEFAULT_MODELS = {"images": "lenet5", "features": "mlp", "tokens": "transformer"}


@dataclasses.dataclass(frozen=True, repr=False)
class Assembly:
    """Parts that fit together.

    Attributes:
        data: where the samples come from; `Points` where they are points of terms.
        model: built, with fresh weights.
        loss, loss_fn, residuals: arguments of `TrainLoop`, two of them None.
        metrics, loss_weights: also arguments of `TrainLoop`.
        train, test: (inputs, targets), the targets as the loss takes them. Of points `train` is a `Points` and `test`
            None.

    Examples:
        >>> parts = assemble("wine", "mlp")
        >>> loop = TrainLoop(parts.model, Adam(), parts.loss, loss_fn=parts.loss_fn, metrics=parts.metrics)
        >>> result = loop.run(parts.train, epochs=5, validation_data=parts.test)
    """

    data: DataSplit | Points
    model: keras.Model
    loss: Loss | None
    loss_fn: LossFn | None
    metrics: list[keras.metrics.Metric | str]
    train: tuple[np.ndarray, np.ndarray] | Points
    test: tuple[np.ndarray, np.ndarray] | None
    residuals: Residuals | None = None
    loss_weights: dict[str, float] | None = None

    def __repr__(self) -> str:
        return f"Assembly({self.model.name} on {self.data!r})"


def assemble(
    dataset: str | os.PathLike | DataSplit | Points,
    model: str | None = None,
    loss: str | None = None,
    seed: int = 0,
    residuals: str | None = None,
    loss_weights: dict[str, float] | None = None,
) -> Assembly:
    """The parts that names on a command line stand for. Sets the seeds of Python, NumPy and Keras.

    Args:
        dataset: see `plugins.find_data`; or a `DataSplit` or `Points`.
        model: see `plugins.find_model`; None for one of this package that fits the data: `DEFAULT_MODELS`.
        loss: see `plugins.find_loss`; None for what fits data and model, see above.
        seed: of the model's weights, of points that come without a seed, and of whatever a user's function draws. The
            data do not move the weights.
        residuals: see `plugins.find_residuals`; in place of a loss. None for a loss.
        loss_weights: {name: number} of the terms of residuals, or of a loss that returns several; None for ones.

    Returns:
        `Assembly`.

    Raises:
        FileNotFoundError: a file that is named does not exist.
        ValueError: what is named does not exist, does not work or does not fit together. One line.

    Examples:
        >>> parts = assemble("diabetes", "mlp")
        >>> parts.loss.name, parts.metrics, parts.model.output_shape
        ('mean_squared_error', ['mean_absolute_error'], (None, 1))
    """
    keras.utils.set_random_seed(seed)
    data = dataset if isinstance(dataset, (DataSplit, Points)) else plugins.find_data(dataset, seed)
    given = _given(loss, residuals)
    what = loss or residuals or "the loss"
    if isinstance(data, Points):
        return _of_points(_points_as_floatx(data), model, {**given, "loss_weights": loss_weights}, what, seed)
    model = model or DEFAULT_MODELS[data.kind]
    build = plugins.find_model(model)
    keras.utils.set_random_seed(seed)
    title, network = f"{model} on {data.name or 'these data'}", build(data.input_shape, data.outputs)
    given, metrics, train, test = _supervised(title, network, data, given, model, loss)
    given["loss_weights"] = loss_weights
    _try_loss(f"{what} of {title}", network, given, _few(data, *train))
    return _assembly(data, network, given, metrics, train, test)


def _of_points(points, model, given, what, seed):
    """The `Assembly` for points of terms."""
    if model is None:
        raise ValueError("for points there is no usual model; give your own, as in --model mine.py:build")
    if "loss_fn" not in given and "residuals" not in given:
        raise ValueError(
            "points have no targets; give --residuals mine.py:residuals, or a function (model, batch) as --loss"
        )
    build = plugins.find_model(model)
    keras.utils.set_random_seed(seed)
    first = tf.nest.flatten(next(iter(points.values.values())))[0]
    network = build(tuple(first.shape[1:]), 1)
    few = {name: tf.nest.map_structure(lambda tensor: tensor[:2], v) for name, v in points.values.items()}
    _try_loss(f"{what} of {model} on these points", network, given, few)
    return _assembly(points, network, given, [], points, None)


def _assembly(data, model, given, metrics, train, test):
    named = {name: given.get(name) for name in ("loss", "loss_fn", "residuals", "loss_weights")}
    return Assembly(data=data, model=model, metrics=metrics, train=train, test=test, **named)


def _given(loss, residuals):
    """The arguments of `TrainLoop` that are asked for."""
    if loss is not None and residuals is not None:
        raise ValueError(f"give a loss or residuals, received both, {loss} and {residuals}")
    if residuals is not None:
        return {"residuals": plugins.find_residuals(residuals)}
    return {} if loss is None else plugins.find_loss(loss)


def _supervised(title, network, data, given, model, loss):
    """(arguments of `TrainLoop`, metrics, train, test) for samples with targets."""
    train, test = _as_floatx(data.x_train, data.y_train), _as_floatx(data.x_test, data.y_test)
    if "loss_fn" in given or "residuals" in given:
        return given, [], train, test
    shape = _output_shape(title, network, data)
    fits = shape == _expected_shape(data)
    reconstructs = data.kind == "images" and shape == data.input_shape
    if reconstructs:
        train, test = (train[0], train[0]), (test[0], test[0])
    elif not fits and not user_code.is_reference(loss or ""):
        raise _misfit(title, data, shape, own=user_code.is_reference(model))
    usual, metrics = _usual(data, reconstructs)
    return given or {"loss": usual}, [] if given and not fits else metrics, train, test


def _as_floatx(*arrays):
    """Floating arrays in float64 where Keras computes in it; a `DataSplit` has float32."""
    double = keras.config.floatx() == "float64"
    return tuple(array.astype("float64") if double and array.dtype.kind == "f" else array for array in arrays)


def _points_as_floatx(points):
    """The same points in the precision of the model; samplers know their own."""
    dtype = keras.config.floatx()

    def cast(tensor):
        return tf.cast(tensor, dtype) if tensor.dtype.is_floating else tensor

    values = {name: points.samplers.get(name) or tf.nest.map_structure(cast, v) for name, v in points.values.items()}
    return Points(values, {name: size for name, size in points.batch_sizes.items() if size}, points.seed)


def _usual(data, reconstructs):
    """(loss, metrics) for such data."""
    if reconstructs:
        return keras.losses.BinaryCrossentropy(from_logits=True), [ReconstructionError()]
    if data.classes is None:
        return keras.losses.MeanSquaredError(), ["mean_absolute_error"]
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]


def _expected_shape(data):
    """Of the predictions for one sample: the outputs, for tokens at each of their positions."""
    return (*data.input_shape, data.outputs) if data.kind == "tokens" else (data.outputs,)


def _output_shape(title, model, data):
    """The shape of the predictions for one sample. A model that is not built yet is built by the call."""
    (inputs,) = _few(data, data.x_train)
    predictions = user_code.call(title, lambda: model(inputs, training=False))
    if not isinstance(predictions, tf.Tensor):
        raise ValueError(
            f"{title}: the model must put out one tensor, received {type(predictions).__name__}; "
            "for several outputs give a loss (model, batch)"
        )
    return tuple(predictions.shape[1:])


def _misfit(title, data, shape, own):
    what = "target" if data.classes is None else "class"
    expected, received = (f"[N, {', '.join(map(str, sides))}]" for sides in (_expected_shape(data), shape))
    advice = "build it with `outputs` units in its last layer, or give a loss of your own" if own else "choose another"
    return ValueError(
        f"{title}: the model must put out one number for every {what}, {expected}, received {received}; {advice}"
    )


def _try_loss(title, model, given, batch):
    function = losses.choose(**given)
    user_code.call(title, lambda: function(model, batch, training=False))


def _few(data, *arrays):
    """Two samples, or three where two could be mistaken for the outputs."""
    rows = np.arange(3 if data.outputs == 2 else 2)
    return tuple(tf.convert_to_tensor(np.take(array, rows, axis=0, mode="wrap")) for array in arrays)
