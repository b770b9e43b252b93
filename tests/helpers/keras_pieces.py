"""Every layer, activation and loss that Keras has, each in a small model: what a new version adds is added here too.

A piece needs a line here where it cannot be made without arguments, where its input is no vector, or where it is not
tried and why.
"""

import inspect

import keras
import numpy as np
from loss_kinds import Kind, labels, normal

L = keras.layers
VECTOR, SEQUENCE, IMAGE, VIDEO, COLOURS = (4,), (6, 2), (6, 6, 2), (4, 4, 4, 2), (6, 6, 3)
STEPS = (3, 2)  # of a recurrent layer, which takes its time


class Scaled(L.Layer):
    """w x + b by channel: weights before a piece that has none."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.RandomUniform(0.5, 1.5, seed=1))
        self.b = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.RandomUniform(-0.2, 0.2, seed=2))

    def call(self, inputs):
        return self.w * inputs + self.b


def classes_of(module, base):
    """{name: class}, each once, by its own name."""
    found = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, base)]
    return {c.__name__: c for c in found}


# --- Layers ---

_NO_DIFFERENTIABLE_INPUT = "takes integers or strings and has no weights"
_ANOTHER_LIBRARY = "wraps a module of another library"
_NO_LAYER = "is no layer that computes"
_NOT_ITS_GRADIENT = "changes images before the first weight; TensorFlow's own gradient of it is off by some percent"
_MIXES = "mixes float32 and float64 inside"
LAYERS_NOT_TRIED = {
    **dict.fromkeys(("Layer", "Wrapper", "InputLayer"), _NO_LAYER),
    **dict.fromkeys(("FlaxLayer", "JaxLayer", "TorchModuleWrapper", "TFSMLayer"), _ANOTHER_LIBRARY),
    **dict.fromkeys(("Hashing", "HashedCrossing", "IntegerLookup", "StringLookup"), _NO_DIFFERENTIABLE_INPUT),
    **dict.fromkeys(("TextVectorization", "CategoryEncoding", "Discretization"), _NO_DIFFERENTIABLE_INPUT),
    **dict.fromkeys(("RandomPerspective", "RandomShear", "RandomTranslation", "RandomZoom"), _NOT_ITS_GRADIENT),
    **dict.fromkeys(("RandomHue", "RandomSaturation", "RandomColorJitter"), _NOT_ITS_GRADIENT),
    **dict.fromkeys(("AugMix", "RandAugment", "RandomRotation", "MelSpectrogram"), _MIXES),
    "Equalization": "cannot be part of a functional model",
    "MaxNumBoundingBoxes": "works on bounding boxes",
    "SpectralNormalization": "writes its own weights and raises, see test_kinds_of_losses",
}


# What TensorFlow computes in float32.
_POOLS = ("AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D", "AveragePooling3D", "MaxPooling3D")
_DIGITS = dict.fromkeys(("Resizing", "RandomCrop", *_POOLS), 6)


def _of(shape, *arguments, **more):
    """A layer with these arguments, on inputs of this shape."""
    return shape, lambda layer, x: layer(*arguments, **more)(x)


def _pair(shape, *arguments, together=True):
    """The same of two inputs: as a list, or as two arguments."""

    def call(layer, x):
        others = x, Scaled()(x)
        return layer(*arguments)(list(others)) if together else layer(*arguments)(*others)

    return shape, call


def _per_dimension(name, *arguments, **more):
    """Lines for layers that there are for sequences, images and videos."""
    return {name.format(i): _of(shape, *arguments, **more) for i, shape in ((1, SEQUENCE), (2, IMAGE), (3, VIDEO))}


def _of_colours(*names, **more):
    """Lines for layers that change images of three colours, from 0 to 255."""
    return {name: _of(COLOURS, **more) for name in names}


_LAYERS = {
    **{n: _pair(VECTOR) for n in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")},
    **{n: _pair(SEQUENCE) for n in ("Attention", "AdditiveAttention")},
    **{n: _of(VECTOR, 0.3, seed=1) for n in ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise")},
    **{n: _of(STEPS, 3) for n in ("GRU", "LSTM", "SimpleRNN")},
    **{n: (STEPS, lambda cell, x: L.RNN(cell(3))(x)) for n in ("GRUCell", "LSTMCell", "SimpleRNNCell")},
    **_per_dimension("AdaptiveAveragePooling{}D", 2),
    "AdaptiveAveragePooling3D": _of(VIDEO, 2, dtype="float32"),
    **_per_dimension("AdaptiveMaxPooling{}D", 2),
    "AdaptiveMaxPooling3D": _of(VIDEO, 2, dtype="float32"),
    **_per_dimension("AveragePooling{}D", 2),
    "AveragePooling3D": _of(VIDEO, 2, dtype="float32"),
    **_per_dimension("MaxPooling{}D", 2),
    "MaxPooling3D": _of(VIDEO, 2, dtype="float32"),
    **_per_dimension("GlobalAveragePooling{}D"),
    **_per_dimension("GlobalMaxPooling{}D"),
    **_per_dimension("Conv{}D", 2, 2),
    **_per_dimension("Conv{}DTranspose", 2, 2),
    **_per_dimension("SeparableConv{}D", 2, 2),
    **_per_dimension("DepthwiseConv{}D", 2),
    **_per_dimension("Cropping{}D", 1),
    **_per_dimension("ZeroPadding{}D", 1),
    **_per_dimension("UpSampling{}D", 2),
    **_per_dimension("SpatialDropout{}D", 0.3, seed=1),
    "ConvLSTM1D": _of((2, 4, 2), 2, 2),
    "ConvLSTM2D": _of((2, 3, 3, 2), 2, 2),
    "ConvLSTM3D": _of((2, 3, 3, 3, 2), 2, 2),
    "Activation": _of(VECTOR, "tanh"),
    "ActivityRegularization": _of(VECTOR, l2=0.1),
    "Bidirectional": (STEPS, lambda layer, x: layer(L.LSTM(3))(x)),
    "Dense": _of(VECTOR, 3),
    "Dot": _pair(VECTOR, 1),
    "EinsumDense": _of(SEQUENCE, "abc,cd->abd", output_shape=(6, 3)),
    "Embedding": (None, lambda layer, x: layer(7, 3)(x)),
    "Flatten": _of(IMAGE),
    "GroupNormalization": _of(VECTOR, 2),
    "GroupedQueryAttention": _pair(SEQUENCE, 2, 4, 2, together=False),
    "Lambda": _of(VECTOR, keras.ops.sin),
    "Masking": (STEPS, lambda layer, x: L.LSTM(3)(layer()(x))),
    "MultiHeadAttention": _pair(SEQUENCE, 2, 3, together=False),
    "Normalization": _of(VECTOR, mean=0.5, variance=2.0),
    "Permute": _of(SEQUENCE, (2, 1)),
    "Pipeline": (VECTOR, lambda layer, x: layer([L.Rescaling(2.0)])(x)),
    "RNN": (STEPS, lambda layer, x: layer(L.SimpleRNNCell(3))(x)),
    "RepeatVector": _of(VECTOR, 2),
    "Rescaling": _of(VECTOR, 2.0, 1.0),
    "Reshape": _of(SEQUENCE, (3, 4)),
    "ReversibleEmbedding": (None, lambda layer, x: layer(7, 3)(x)),
    "StackedRNNCells": (STEPS, lambda layer, x: L.RNN(layer([L.GRUCell(3), L.GRUCell(2)]))(x)),
    "TimeDistributed": (SEQUENCE, lambda layer, x: layer(L.Dense(3))(x)),
    "CenterCrop": _of(IMAGE, 4, 4),
    "RandomCrop": _of(IMAGE, 4, 4, seed=1),
    "Resizing": _of(IMAGE, 4, 5),
    "STFTSpectrogram": _of((64, 1), frame_length=16, frame_step=16, fft_length=16),
    **_of_colours("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Solarization"),
    **_of_colours("CutMix", "MixUp", "RandomElasticTransform", "RandomErasing", "RandomFlip", seed=1),
    **_of_colours("RandomGaussianBlur", "RandomGrayscale", "RandomInvert", seed=1),
    **_of_colours("RandomBrightness", "RandomColorDegeneration", "RandomContrast", factor=0.2, seed=1),
    "RandomPosterization": _of(COLOURS, 4, seed=1),
    "RandomSharpness": _of(COLOURS, 0.2, seed=1),
}


def _layer(layer, shape, apply, **more):
    """A `Kind`: weights, the layer, and a dense layer, with a squared error."""

    def make():
        inputs = keras.Input(shape or (5,), dtype=None if shape else "int32")
        outputs = apply(layer, Scaled()(inputs) if shape else inputs)
        return keras.Model(inputs, L.Dense(2)(L.Flatten()(outputs)))

    x = normal(4, *shape) if shape else labels(20, 7).reshape(4, 5)
    if shape == COLOURS:
        x = 100 + 30 * x
    return Kind(make, (x, normal(4, 2, seed=2)), loss="mse", **more)


LAYERS = {
    name: _layer(layer, *_LAYERS.get(name, _of(VECTOR)), digits=_DIGITS.get(name, 12))
    for name, layer in classes_of(L, L.Layer).items()
    if name not in LAYERS_NOT_TRIED
}
for _way in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
    _how = {"interpolation": _way, "dtype": "float32"}
    LAYERS[f"UpSampling2D {_way}"] = _layer(L.UpSampling2D, *_of(IMAGE, 2, **_how), digits=6)
    LAYERS[f"Resizing {_way}"] = _layer(L.Resizing, *_of(IMAGE, 4, 5, **_how), digits=6)


# --- Activations ---

_ACTIVATIONS = {
    "glu": lambda z: keras.ops.tile(keras.activations.glu(z), (1, 2)),  # an activation keeps the shape, says Keras
    "threshold": lambda z: keras.activations.threshold(z, 0.1, -0.5),
}


def functions_of(module):
    """{name: function}, each once, but for those that read and write configurations."""
    found = {f: name for name, f in vars(module).items() if inspect.isfunction(f)}
    return {name: f for f, name in found.items() if name not in ("deserialize", "get", "serialize")}


def _activation(activation):
    def make():
        inputs = keras.Input(VECTOR)
        return keras.Model(inputs, L.Dense(3)(L.Activation(activation)(L.Dense(6)(inputs))))

    return Kind(make, (normal(12, 4), normal(12, 3, seed=2)), loss="mse")


ACTIVATIONS = {
    name: _activation(_ACTIVATIONS.get(name, function)) for name, function in functions_of(keras.activations).items()
}

# --- Losses ---

SIGNS, ONE_HOT, CLASSES = np.sign(normal(12, 3, seed=2)), np.eye(3)[labels(12)], labels(12)
POSITIVE, REAL, UNIT = np.abs(normal(12, 3, seed=2)), normal(12, 3, seed=2), normal(12, 3, seed=2)

# By the beginning of a name: how the outputs become predictions, and the targets. The longest that fits counts.
_TARGETS = {
    "": ("linear", REAL),
    "Binary": ("sigmoid", (SIGNS + 1) / 2),
    "Categorical": ("softmax", ONE_HOT),
    "CategoricalHinge": ("linear", ONE_HOT),
    "Circle": (L.UnitNormalization, CLASSES),
    "CategoricalGeneralized": ("softmax", CLASSES),
    "Dice": ("sigmoid", ONE_HOT),
    "Hinge": ("linear", SIGNS),
    "KLDivergence": ("softmax", (ONE_HOT + 0.1) / 1.3),
    "MeanSquaredLogarithmicError": ("softplus", POSITIVE),
    "Poisson": ("softplus", POSITIVE),
    "SparseCategorical": ("softmax", CLASSES),
    "SquaredHinge": ("linear", SIGNS),
    "Tversky": ("sigmoid", ONE_HOT),
}
LOSSES_NOT_TRIED = {
    "Loss": "is no loss that computes",
    "CTC": "takes sequences of labels; TensorFlow gives it no second derivatives",
}

# Losses that compute with the logits which Keras keeps beside probabilities: there the Gauss-Newton matrix is split.
_AT_LOGITS = (
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "SparseCategoricalCrossentropy",
)


class LossKind(Kind):
    """A loss of the predictions of a small net.

    Args:
        loss: a class of Keras.
        activation: name of what makes predictions of the outputs, or a layer class.
        targets: of 12 samples.
        arguments: of the loss.
    """

    def __init__(self, loss, activation, targets, **arguments):
        super().__init__(lambda: self._net(activation), (normal(12, 4), targets), loss=lambda: loss(**arguments))
        self._at_logits = activation != "linear" and loss.__name__ in _AT_LOGITS
        self._activation = activation

    def _net(self, activation):
        last = activation() if inspect.isclass(activation) else L.Activation(activation)
        return keras.Sequential([L.Input(VECTOR), L.Dense(5, "tanh"), L.Dense(3), last])

    def seam(self, model, batch):
        if not self._at_logits:
            return super().seam(model, batch)
        z = batch[0]
        for layer in model.layers[:-1]:
            z = layer(z)
        return z

    def compare_seam(self, z, batch):
        return self.compare(keras.activations.get(self._activation)(z) if self._at_logits else z, batch)


def _losses():
    for name, loss in classes_of(keras.losses, keras.losses.Loss).items():
        if name in LOSSES_NOT_TRIED:
            continue
        activation, targets = _TARGETS[max(filter(name.startswith, _TARGETS), key=len)]
        yield name, LossKind(loss, activation, targets)
        if "from_logits" in inspect.signature(loss).parameters:
            yield f"{name} from logits", LossKind(loss, "linear", targets, from_logits=True)
        if "label_smoothing" in inspect.signature(loss).parameters:
            yield f"{name} smoothed", LossKind(loss, activation, targets, label_smoothing=0.1)


LOSSES = dict(_losses())
