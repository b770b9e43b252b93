"""Small networks for any image size and number of classes; all put out logits."""

import keras

from trainloop import checks


def lenet5(input_shape=(28, 28, 1), classes=10):
    """LeNet-5: two convolutions with pooling, three dense layers; n = 44,426 for 28x28x1 images and 10 classes.

    6 and 16 filters of 5x5, each followed by 2x2 max pooling, then 120, 84 and `classes` units. LeCun et al. (1998),
    with ReLU and max pooling in place of scaled tanh and trainable subsampling. Images of fewer than 16 pixels on a
    side are padded, because two unpadded 5x5 convolutions would leave nothing of them.

    Args:
        input_shape: (height, width, channels).
        classes: at least 2.
    """
    input_shape, classes = _checked(input_shape, classes)
    padding = "valid" if min(input_shape[:2]) >= 16 else "same"
    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Conv2D(6, 5, padding=padding, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(2, padding=padding),
            keras.layers.Conv2D(16, 5, padding=padding, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(2, padding=padding),
            keras.layers.Flatten(),
            keras.layers.Dense(120, activation="relu", name="dense1"),
            keras.layers.Dense(84, activation="relu", name="dense2"),
            keras.layers.Dense(classes, name="logits"),
        ],
        name="lenet5",
    )


def mlp(input_shape=(28, 28, 1), classes=10, hidden=(128,)):
    """Multilayer perceptron with ReLU units, one hidden layer of 128; n = 101,770 for 28x28x1 images and 10 classes.

    Args:
        input_shape: (height, width, channels).
        classes: at least 2.
        hidden: widths of the hidden layers, possibly none.
    """
    input_shape, classes = _checked(input_shape, classes)
    widths = [checks.integer("a width in hidden", width, at_least=1) for width in hidden]
    layers = [keras.layers.Dense(w, activation="relu", name=f"dense{i}") for i, w in enumerate(widths, 1)]
    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Flatten(),
            *layers,
            keras.layers.Dense(classes, name="logits"),
        ],
        name="mlp",
    )


def softmax_regression(input_shape=(28, 28, 1), classes=10):
    """Multinomial logistic regression, a convex problem; n = 7,850 for 28x28x1 images and 10 classes."""
    model = mlp(input_shape, classes, hidden=())
    model.name = "softmax_regression"
    return model


MODELS = {"lenet5": lenet5, "mlp": mlp, "softmax_regression": softmax_regression}


def _checked(input_shape, classes):
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (height, width, channels), received {tuple(input_shape)}")
    shape = tuple(checks.integer("an entry of input_shape", side, at_least=1) for side in input_shape)
    return shape, checks.integer("classes", classes, at_least=2)
