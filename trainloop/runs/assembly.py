"""From words to everything that is trained, but for the method: data, model, loss and metrics that fit together.

    data                            loss unless another is asked for        metrics
    classes                         crossentropy from logits                accuracy
    tokens                          the same at every position              accuracy at every position
    regression                      mean squared error                      mean absolute error
    images, and a model that puts   crossentropy of every pixel from        squared error of an image
    out images: an autoencoder      logits; the targets are the images

Everything is tried on a few samples, outside of compiled code, so that what does not fit is said before a run begins.
"""

import dataclasses
import os

import keras
import numpy as np
import tensorflow as tf

from trainloop.data.split import DataSplit
from trainloop.loop.metrics import ReconstructionError
from trainloop.objectives import losses
from trainloop.runs import plugins, user_code
from trainloop.types import Loss, LossFn

# What is trained on data of a kind unless another model is asked for.
DEFAULT_MODELS = {"images": "lenet5", "features": "mlp", "tokens": "transformer"}


@dataclasses.dataclass(frozen=True, repr=False)
class Assembly:
    """Parts that fit together.

    Attributes:
        data: where the samples come from.
        model: built, with fresh weights.
        loss, loss_fn: arguments of `TrainLoop`, one of them None.
        metrics: also an argument of `TrainLoop`.
        train, test: (inputs, targets), the targets as the loss takes them.

    Example:
        >>> parts = assemble("wine", "mlp")
        >>> loop = TrainLoop(parts.model, Adam(), parts.loss, loss_fn=parts.loss_fn, metrics=parts.metrics)
        >>> result = loop.run(parts.train, epochs=5, validation_data=parts.test)
    """

    data: DataSplit
    model: keras.Model
    loss: Loss | None
    loss_fn: LossFn | None
    metrics: list[keras.metrics.Metric | str]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    def __repr__(self) -> str:
        return f"Assembly({self.model.name} on {self.data!r})"


def assemble(
    dataset: str | os.PathLike | DataSplit, model: str | None = None, loss: str | None = None, seed: int = 0
) -> Assembly:
    """The parts that words on a command line stand for. Sets the seeds of Python, NumPy and Keras.

    Args:
        dataset: see `plugins.find_data`; or a `DataSplit`.
        model: see `plugins.find_model`; None for one of this package that fits the data: `DEFAULT_MODELS`.
        loss: see `plugins.find_loss`; None for what fits data and model, see above.
        seed: of the model's weights, and of whatever a user's function draws. The data do not move the weights.

    Returns:
        `Assembly`.

    Raises:
        FileNotFoundError: a file that is named does not exist.
        ValueError: what is named does not exist, does not work or does not fit together. One line.

    Example:
        >>> parts = assemble("diabetes", "mlp")
        >>> parts.loss.name, parts.metrics, parts.model.output_shape
        ('mean_squared_error', ['mean_absolute_error'], (None, 1))
    """
    keras.utils.set_random_seed(seed)
    data = dataset if isinstance(dataset, DataSplit) else plugins.find_data(dataset)
    model = model or DEFAULT_MODELS[data.kind]
    build = plugins.find_model(model)
    given = {} if loss is None else plugins.find_loss(loss)
    keras.utils.set_random_seed(seed)
    title, network = f"{model} on {data.name or 'these data'}", build(data.input_shape, data.outputs)
    train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
    metrics = []
    if "loss_fn" not in given:
        shape = _output_shape(title, network, data)
        fits = shape == _expected_shape(data)
        reconstructs = data.kind == "images" and shape == data.input_shape
        if reconstructs:
            train, test = (data.x_train, data.x_train), (data.x_test, data.x_test)
        elif not fits and not user_code.is_reference(loss or ""):
            raise _misfit(title, data, shape, own=user_code.is_reference(model))
        usual, metrics = _usual(data, reconstructs)
        if given and not fits:
            metrics = []
        given = given or {"loss": usual}
    _try_loss(f"{loss or 'the loss'} of {title}", network, given, _few(data, *train))
    return Assembly(data, network, given.get("loss"), given.get("loss_fn"), metrics, train, test)


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
