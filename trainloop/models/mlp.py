"""Dense networks on images and on rows of a table."""

from collections.abc import Sequence

import keras

from trainloop import checks
from trainloop.models import arguments


def mlp(input_shape: Sequence[int] = (28, 28, 1), outputs: int = 10, hidden: Sequence[int] = (128,)) -> keras.Model:
    """Multilayer perceptron with ReLU units, one hidden layer of 128; n = 101,770 for 28x28x1 images and 10 outputs.

    Args:
        input_shape: (height, width, channels) or (features,).
        outputs: classes or targets.
        hidden: widths of the hidden layers, possibly none.

    Examples:
        >>> mlp(input_shape=(13,), outputs=3, hidden=(32, 16)).count_params()
        1027
    """
    input_shape, outputs = arguments.shape("mlp", arguments.IMAGE_OR_ROW, input_shape), arguments.outputs(outputs)
    widths = [checks.integer("a width in hidden", width, at_least=1) for width in hidden]
    layers = [keras.layers.Dense(w, activation="relu", name=f"dense{i}") for i, w in enumerate(widths, 1)]
    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Flatten(),
            *layers,
            keras.layers.Dense(outputs, name="logits"),
        ],
        name="mlp",
    )


def softmax_regression(input_shape: Sequence[int] = (28, 28, 1), outputs: int = 10) -> keras.Model:
    """Multinomial logistic regression, a convex problem; n = 7,850 for 28x28x1 images and 10 classes.

    With the squared error of regression data it is linear least squares.

    Examples:
        >>> network = softmax_regression(input_shape=(4,), outputs=3)
        >>> whole = ArrayData(x, y, batch_size=None)
        >>> result = TrainLoop(network, NewtonCG(), loss).run(whole, steps=2)
    """
    model = mlp(input_shape, outputs, hidden=())
    model.name = "softmax_regression"
    return model
