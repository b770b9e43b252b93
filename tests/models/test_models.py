"""The networks that come along: their sizes, the shapes they take, and what each is known for."""

import itertools

import keras
import numpy as np
import pytest

from trainloop import MODELS, autoencoder, lenet5, lstm, mlp, resnet20, softmax_regression, transformer
from trainloop.models import LearnedPositions

ROWS_TOO = (mlp, softmax_regression)
IMAGES = (lenet5, *ROWS_TOO)
SEQUENCES = (transformer, lstm)


def sizes(model):
    return [tuple(v.shape) for v in model.trainable_variables]


def test_lenet5_is_the_tutorials():
    model = lenet5()
    assert model.count_params() == 44_426
    kernels = [(5, 5, 1, 6), (5, 5, 6, 16), (256, 120), (120, 84), (84, 10)]
    assert sizes(model) == [shape for kernel in kernels for shape in (kernel, kernel[-1:])]


# For CIFAR's three channels He et al. report 0.27 million, and reimplementations with option A count 269,722.
RESNET = 269_722 - 2 * 3 * 3 * 16
DEPTHS = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
AUTOENCODER = sum((a + 1) * b for a, b in itertools.pairwise(DEPTHS))
# Per block: queries, keys, values and outputs, two dense layers, two normalisations.
BLOCK = 4 * 64 * 65 + (65 * 256 + 257 * 64) + 2 * 2 * 64
TRANSFORMER = 96 * 64 + 64 * 64 + 2 * BLOCK + 2 * 64 + 65 * 96
LSTM = 96 * 32 + 4 * 128 * (32 + 128 + 1) + 129 * 96


@pytest.mark.parametrize(
    ("make", "n"),
    [
        (mlp, 784 * 128 + 128 + 1290),
        (softmax_regression, 7850),
        (resnet20, RESNET),
        (autoencoder, AUTOENCODER),
        (transformer, TRANSFORMER),
        (lstm, LSTM),
    ],
)
def test_parameter_counts_are_those_of_the_first_line(make, n):
    assert sum(np.prod(shape, dtype=int) for shape in sizes(make())) == n
    assert f"n = {n:,} for" in make.__doc__.splitlines()[0]


@pytest.mark.parametrize("build", IMAGES)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 20, 3), (16, 16, 1), (8, 8, 1), (1, 1, 2)])
@pytest.mark.parametrize("outputs", [1, 7])
def test_any_image_size_and_number_of_outputs(build, shape, outputs):
    assert build(shape, outputs)(np.zeros((3, *shape))).shape == (3, outputs)


@pytest.fixture(scope="module")
def resnet():
    return resnet20((5, 6, 3), 1)


def test_resnet20_takes_any_image_size(resnet):
    assert resnet(np.zeros((3, 5, 6, 3))).shape == (3, 1)


def test_a_shortcut_is_every_other_pixel_between_channels_of_zeros(resnet):
    model, image = resnet, np.random.default_rng(0).random((1, 5, 6, 3))
    before, added = model.get_layer("stage2_block1_conv1").input, model.get_layer("stage2_block1_conv2_norm").output
    sums = [layer.input for layer in model.layers if isinstance(layer, keras.layers.Add)]
    shortcut = next(pair[0] for pair in sums if pair[1] is added)
    x, shortcut = (np.asarray(t) for t in keras.Model(model.input, [before, shortcut])(image))
    assert shortcut.shape == (1, 3, 3, 32)
    np.testing.assert_array_equal(shortcut[..., 8:24], x[:, ::2, ::2])
    np.testing.assert_array_equal(shortcut[..., :8], 0)
    np.testing.assert_array_equal(shortcut[..., 24:], 0)


def test_autoencoder_puts_out_images_and_has_a_linear_code():
    model = autoencoder((4, 3, 2))
    assert model.output_shape == (None, 4, 3, 2)
    activations = [layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert activations == ["sigmoid"] * 3 + ["linear"] + ["sigmoid"] * 3 + ["linear"]


@pytest.mark.parametrize("build", ROWS_TOO)
def test_rows_of_a_table(build):
    assert build((5,), 3)(np.zeros((2, 5))).shape == (2, 3)


@pytest.mark.parametrize("build", SEQUENCES)
def test_sequences_are_read_from_left_to_right(build):
    tokens = np.random.default_rng(0).integers(0, 11, (2, 8)).astype("int32")
    changed = tokens.copy()
    changed[:, 5] = (tokens[:, 5] + 1) % 11
    model = build((8,), 11)
    before, after = np.asarray(model(tokens)), np.asarray(model(changed))
    assert before.shape == (2, 8, 11)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.all(np.any(before[:, 5:] != after[:, 5:], axis=-1))


def test_transformer_knows_positions():
    logits = np.asarray(transformer((8,), 11)(np.zeros((1, 8), "int32")))
    assert np.any(np.abs(logits[0, 0] - logits[0, 1]) > 1e-3)


def test_positions_are_added():
    layer = LearnedPositions()
    x = np.random.default_rng(0).random((2, 3, 4))
    np.testing.assert_allclose(layer(x) - x, np.broadcast_to(layer.table.numpy(), x.shape), rtol=1e-12)


@pytest.mark.thorough
def test_models_that_are_no_stacks_of_keras_layers_are_saved_and_loaded(resnet, tmp_path):
    for model, shape in ((transformer((8,), 3), (1, 8)), (resnet, (1, 5, 6, 3))):
        model.save(tmp_path / "model.keras")
        again, x = keras.models.load_model(tmp_path / "model.keras"), np.ones(shape, "int32")
        np.testing.assert_array_equal(again(x), model(x))


def test_hidden_layers_are_those_asked_for():
    assert sizes(mlp((2, 2, 1), 3, hidden=(5, 6)))[::2] == [(4, 5), (5, 6), (6, 3)]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_bad_shapes_are_refused(build):
    shape = (8,) if build in SEQUENCES else (28, 28, 1)
    for bad in ((28, 28), (0,), (28, 0, 1), 28, (2, 2, 2, 2)):
        with pytest.raises(ValueError, match="input_shape"):
            build(bad, 10)
    for bad in (0, 2.0, True):
        if build is not autoencoder:  # which takes no notice of it
            with pytest.raises(ValueError, match="outputs"):
                build(shape, bad)
