"""The loss of one batch in its parts, against NumPy; and what its parts weigh."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.regularizers import L1, L2
from networks import blobs, crossentropy, dense_net

from trainloop.objectives.losses import CustomLoss, SupervisedLoss, choose, own_losses, samples, share_of_samples
from trainloop.objectives.model import ModelObjective


def linear_net(**options):
    return keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2, **options)])


def regression():
    return blobs(12)[0], np.random.default_rng(0).normal(size=(12, 2))


def log_probabilities(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


# --- Keras losses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
def test_the_crossentropy_of_a_batch_is_that_of_numpy(reduction, weighted):
    x, y = blobs(12)
    weight = np.random.default_rng(0).uniform(0, 3, 12) if weighted else np.ones(12)
    model = dense_net()
    loss = SupervisedLoss(keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction))
    f, predictions = loss(model, (x, y, weight) if weighted else (x, y), training=True)
    each = -log_probabilities(predictions.numpy())[np.arange(12), y]
    divisor = {"sum": 1, "sum_over_batch_size": 12, "mean_with_sample_weight": weight.sum()}[reduction]
    assert float(f) == pytest.approx(weight @ each / divisor, rel=1e-12)


def test_a_loss_is_what_compare_makes_of_what_forward_gives_and_the_own_losses():
    model, (x, y) = linear_net(kernel_regularizer=L2(0.5), bias_regularizer=L1(0.25)), regression()
    model.layers[-1].bias.assign([0.5, -2])
    loss, batch = SupervisedLoss("mse"), (x, y, np.arange(12.0))
    compared, own, predictions = loss.terms(model, batch, training=False)
    z = x @ model.layers[-1].kernel.numpy() + [0.5, -2]
    np.testing.assert_allclose(predictions, z, rtol=1e-12)
    np.testing.assert_allclose(loss.forward(model, batch, training=False), z, rtol=1e-12)
    expected = np.arange(12) @ ((y - z) ** 2).mean(1) / 12
    assert float(compared) == pytest.approx(expected, rel=1e-12)
    assert float(loss.compare(predictions, batch)) == pytest.approx(expected, rel=1e-12)
    assert float(own) == pytest.approx(0.5 * (model.layers[-1].kernel.numpy() ** 2).sum() + 0.25 * 2.5, rel=1e-12)
    assert float(loss(model, batch, training=False)[0]) == pytest.approx(float(compared + own), rel=1e-15)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", lambda t, p: tf.reduce_mean(tf.square(t - p), -1)])
@pytest.mark.parametrize(
    ("targets", "predictions"), [((8,), (8, 1)), ((8, 1), (8,)), ((8, 3), (8, 3, 1)), ((8, 3, 1), (8, 3))]
)
def test_an_axis_of_length_one_is_no_difference_as_in_fit(loss, targets, predictions):
    x = np.random.default_rng(0).uniform(0.1, 0.9, (8, *predictions[1:]))
    y = np.random.default_rng(1).integers(0, 2, targets).astype(float)
    inputs = keras.Input(predictions[1:])
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(loss=loss)
    f, _ = SupervisedLoss(loss)(model, (tf.constant(x), tf.constant(y)), training=False)
    assert float(f) == pytest.approx(model.evaluate(x, y, batch_size=8, verbose=0), rel=1e-6)


def test_forward_trains_and_infers_as_it_is_told():
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dropout(0.5, seed=1)])
    x = np.ones((12, 6))
    loss = SupervisedLoss("mse")
    np.testing.assert_array_equal(loss.forward(model, (x, x), training=False), x)
    assert set(np.unique(loss.forward(model, (x, x), training=True))) == {0.0, 2.0}


def test_functions_of_any_name_are_losses_with_sample_weights():
    def _(targets, predictions):
        return tf.reduce_max(tf.abs(targets - predictions), -1)

    (x, y), weight, model = regression(), np.arange(12.0), linear_net()
    expected = weight @ np.abs(y - model(x).numpy()).max(1) / 12
    for function in (_, lambda t, p: _(t, p), functools.partial(_)):
        f, _predictions = SupervisedLoss(function)(model, (x, y, weight), training=True)
        assert float(f) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "words"),
    [(np.ones((3, 6)), "received"), ((np.ones((3, 6)),), "received 1 parts"), ((1, 2, 3, 4), "received 4 parts")],
)
def test_a_batch_without_targets_is_refused_with_the_way_out(batch, words):
    with pytest.raises(ValueError, match=f"{words}.*loss_fn"):
        SupervisedLoss("mse")(linear_net(), batch, training=True)


def test_a_loss_that_is_not_reduced_is_refused():
    with pytest.raises(ValueError, match=r"scalar.*\(12,\).*tf.reduce_mean"):
        SupervisedLoss(keras.losses.MeanSquaredError(reduction=None))(linear_net(), regression(), training=True)


@pytest.mark.parametrize("loss", [3, [], "mean_square_error"])
def test_what_is_no_loss_is_refused(loss):
    with pytest.raises(ValueError, match=r"loss|mean_square_error"):
        SupervisedLoss(loss)


# --- Own loss functions -----------------------------------------------------------------------------------


def test_own_loss_functions_learn_whether_they_train_if_they_ask():
    asked = CustomLoss(lambda model, batch, training: tf.constant(2.0 if training else 3.0))
    assert [float(asked(None, None, training)[0]) for training in (True, False)] == [2, 3]
    assert CustomLoss(lambda model, batch: tf.constant(4.0))(None, None, True)[1] is None


def test_an_own_loss_function_adds_what_it_wants_itself():
    model = linear_net(kernel_regularizer="l2")
    x, y = regression()
    f, own, _ = CustomLoss(lambda model, batch: tf.reduce_mean(model(batch[0]) - batch[1])).terms(model, (x, y), True)
    assert float(f) == pytest.approx((model(x).numpy() - y).mean(), rel=1e-12)
    assert float(own) == 0


def test_an_own_loss_function_may_return_a_number():
    assert float(CustomLoss(lambda model, batch: 2.5)(None, None, True)[0]) == 2.5


def test_an_own_loss_function_must_return_a_scalar():
    with pytest.raises(ValueError, match=r"scalar.*\(2,\)"):
        CustomLoss(lambda model, batch: tf.ones([2]))(None, None, True)


def test_what_cannot_be_called_is_no_loss_function():
    with pytest.raises(ValueError, match="loss_fn"):
        CustomLoss(3)


def test_exactly_one_loss_is_chosen():
    assert isinstance(choose("mse"), SupervisedLoss)
    assert isinstance(choose(loss_fn=lambda model, batch: 0.0), CustomLoss)
    assert SupervisedLoss.composite
    assert not CustomLoss.composite
    for pair in ({}, {"loss": "mse", "loss_fn": lambda model, batch: 0.0}):
        with pytest.raises(ValueError, match="exactly one of loss"):
            choose(**pair)


def test_functions_that_change_places_are_told_so():
    def of_a_model(model, batch):
        return 0.0

    def of_targets(y_true, y_pred):
        return 0.0

    with pytest.raises(ValueError, match=r"of \(targets, predictions\), received one of \(model, batch\); .* loss_fn="):
        choose(of_a_model)
    for misplaced in (of_targets, keras.losses.MeanSquaredError(), lambda targets, predictions: 0.0):
        with pytest.raises(ValueError, match=r"of \(model, batch\), received one of \(.*\); pass it as loss="):
            choose(loss_fn=misplaced)


# --- Parts ------------------------------------------------------------------------------------------------


def test_parts_weigh_their_samples_or_what_these_weigh():
    x, y, weight = np.zeros((5, 2)), np.zeros(5), np.array([1.0, 2, 3, 4, 10])
    batch, part = tf.nest.map_structure(tf.constant, ((x, y, weight), (x[:2], y[:2], weight[:2])))
    shares = {"sum": 1, "sum_over_batch_size": 2 / 5, "mean": 2 / 5, "mean_with_sample_weight": 3 / 20}
    for reduction, share in shares.items():
        loss = SupervisedLoss(keras.losses.MeanSquaredError(reduction=reduction))
        assert float(loss.share(part, batch)) == pytest.approx(share, rel=1e-15)
    assert float(CustomLoss(lambda model, batch: 0.0).share(part, batch)) == pytest.approx(2 / 5, rel=1e-15)
    unweighted = SupervisedLoss(keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    assert float(unweighted.share(part[:2], batch[:2])) == pytest.approx(2 / 5, rel=1e-15)


def test_samples_are_counted_in_the_first_tensor_of_any_structure():
    batch = {"a": (tf.zeros([7, 2]), tf.zeros([7])), "b": tf.zeros([7])}
    assert int(samples(batch)) == 7
    assert float(share_of_samples({"a": tf.zeros([2])}, batch)) == pytest.approx(2 / 7, rel=1e-15)


def test_own_losses_are_summed_in_the_dtype_asked_for():
    model = linear_net(kernel_regularizer="l2")
    model(np.ones((1, 6)))
    assert own_losses(model, tf.float32).dtype == tf.float32
    assert float(own_losses(dense_net(), tf.float64)) == 0


def test_float32_models_have_float32_losses(float32):
    x, y = blobs(12)
    f, own, _ = SupervisedLoss(crossentropy()).terms(dense_net(), (x.astype("float32"), y), training=True)
    assert f.dtype == own.dtype == tf.float32


def parts_of(loss, targets, predictions, size=3, weight=None):
    """(f of the batch, f in parts of so many samples) of a model that puts out what is put in."""
    model = keras.Sequential([keras.layers.Input(predictions.shape[1:]), keras.layers.Rescaling(1.0)])
    model.scale = keras.Variable(1.0, dtype="float64")
    batch = tuple(map(tf.constant, (predictions, targets, *([] if weight is None else [weight]))))
    objectives = [ModelObjective(model, loss, batch, microbatch_size=size) for size in (None, size)]
    return [float(objective.value(objective.vector.read())) for objective in objectives]


def probabilities(*shape):
    z = np.random.default_rng(0).uniform(0.1, 1, shape)
    return z / z.sum(-1, keepdims=True)


LABELS = np.array([0, 1, 2, 2, 1, 0, 0])


@pytest.mark.parametrize(
    ("loss", "targets", "predictions", "reason"),
    [
        (keras.losses.Dice(), np.eye(3)[LABELS], probabilities(7, 3), "the loss Dice gives one number for a whole"),
        (keras.losses.Tversky(reduction="sum"), np.eye(3)[LABELS], probabilities(7, 3), "one number for a whole batch"),
        (keras.losses.Circle(), LABELS, probabilities(7, 3), "compares the samples"),
        (lambda t, p: tf.reduce_mean(tf.square(t - p)), np.eye(3)[LABELS], probabilities(7, 3), "one number for a"),
        (lambda t, p: tf.reduce_mean(tf.square(t - p), 0), np.eye(3)[LABELS], probabilities(7, 3), r"the shape \[3\]"),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=2), LABELS, probabilities(7, 3), "what is not masked"),
    ],
)
def test_losses_that_are_no_sums_over_samples_take_batches_whole(loss, targets, predictions, reason):
    with pytest.raises(ValueError, match=f"{reason}.*not the sum of those of its parts; use microbatch_size=None"):
        parts_of(loss, targets, predictions)


@pytest.mark.parametrize(
    ("loss", "targets", "predictions", "weight"),
    [
        (
            keras.losses.SparseCategoricalCrossentropy(ignore_class=2, reduction="sum", dtype="float64"),
            LABELS,
            probabilities(7, 3),
            None,
        ),
        (keras.losses.Dice(axis=(1, 2), dtype="float64"), probabilities(7, 4, 3), probabilities(7, 4, 3)[::-1], None),
        (lambda t, p: tf.reduce_max(tf.abs(t - p), -1), np.eye(3)[LABELS], probabilities(7, 3), np.arange(7.0)),
        ("mse", np.ones((7, 4, 3)), probabilities(7, 4, 3), np.arange(28.0).reshape(7, 4)),
        ("crossentropy", LABELS, probabilities(7, 3), None),
    ],
)
def test_losses_that_are_sums_over_samples_are_exact_in_parts(loss, targets, predictions, weight):
    whole, parts = parts_of(loss, targets, predictions, weight=weight)
    assert parts == pytest.approx(whole, rel=1e-13)


# --- What is received is said in one line -----------------------------------------------------------------


def returned_by(kind, value):
    """The message about a function that returns the value, without computing anything."""
    x, y = regression()
    arguments = {"loss": lambda targets, predictions: value} if kind == "loss" else {"loss_fn": lambda m, b: value}
    with pytest.raises(ValueError, match="must return") as caught:
        choose(**arguments)(linear_net(), (x, y), True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["loss", "loss_fn"])
def test_what_a_function_must_not_return(kind):
    assert "received None; end it with a return" in returned_by(kind, None)
    assert "received a str" in returned_by(kind, "mse")
    assert "received a tuple of 2; return the loss alone" in returned_by(kind, (tf.constant(1.0), 3))
    if kind == "loss":
        assert "received a dict" in returned_by(kind, {"loss": 1.0})
    assert "received int32 of shape (12,); take" in returned_by(kind, tf.ones([12], tf.int32))
    assert "received complex128 of shape (12,); take" in returned_by(kind, tf.ones([12], tf.complex128))


def test_a_class_of_losses_is_not_a_loss():
    with pytest.raises(ValueError, match=r"object and not a class; write loss=MeanSquaredError\(\.\.\.\)"):
        choose(keras.losses.MeanSquaredError)


@pytest.mark.parametrize(
    ("targets", "weight", "words"),
    [
        (
            np.ones(12),
            None,
            r"the shape of the predictions, \[12, 3\], received \[12\]; .* of class numbers",
        ),
        (np.ones((12, 2)), None, r"\[12, 3\], received \[12, 2\]"),
        (np.ones((12, 3), complex), None, "targets must be real numbers, received complex128"),
        (np.full((12, 3), "a"), None, "targets must be real numbers, received string"),
        (np.ones((12, 3)), np.ones((12, 2)), r"sample_weight must have the shape .* \[N\], received \[12, 2\]"),
        (np.ones((12, 3)), np.ones(12, complex), "sample_weight must be one tensor of real numbers, received complex"),
        ([np.ones((12, 3))] * 2, None, "targets must be one tensor, received a list"),
    ],
)
def test_targets_and_weights_that_do_not_belong_to_the_predictions(targets, weight, words):
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
    batch = (np.ones((12, 6)), targets) if weight is None else (np.ones((12, 6)), targets, weight)
    with pytest.raises(ValueError, match=words):
        SupervisedLoss("mse")(model, batch, training=True)


def test_weights_of_samples_beside_a_loss_at_every_position():
    model = keras.Sequential([keras.layers.Input((4, 6)), keras.layers.Dense(3)])
    batch = np.ones((5, 4, 6)), np.ones((5, 4, 3))
    with pytest.raises(ValueError, match=r"\[N, 4\] or \[N, 1\], received \[5\]"):
        SupervisedLoss("mse")(model, (*batch, np.ones(5)), training=True)
    one, other = (SupervisedLoss("mse")(model, (*batch, np.ones(shape)), True)[0] for shape in ((5, 1), (5, 4)))
    assert float(one) == pytest.approx(float(other), rel=1e-15)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.ones((12, 5)), r"must have shape \[N, 6\], received \[12, 5\]$"),
        (np.ones(6), r"must have shape \[N, 6\], received \[6\]; it has no batch dimension: call batch\(...\)"),
        (np.ones((12, 6), complex), "must be float64, received complex128; split it"),
        (np.full((12, 6), "a"), "must be float64, received string; convert it first"),
    ],
)
def test_inputs_that_the_model_does_not_take(inputs, words):
    with pytest.raises(ValueError, match=words):
        SupervisedLoss("mse")(linear_net(), tuple(map(tf.constant, (inputs, np.ones((12, 2))))), training=True)


def test_inputs_that_keras_reshapes():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    for shape in ((12,), (12, 1), (12, 1, 1)):
        assert SupervisedLoss("mse").forward(model, (np.ones(shape), np.ones(12)), training=False).shape == (12, 1)


@pytest.mark.parametrize(("labels", "received"), [([0, 3], "3 at index \\(1,\\)"), ([-1, 0], "-1 at index \\(0,\\)")])
def test_class_numbers_are_checked_in_memory(labels, received):
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
    loss = choose(crossentropy(), model=model)
    loss.check_labels(tf.constant([0, 2, 1]))
    with pytest.raises(ValueError, match=f"targets: expected class numbers in 0..2, received {received}"):
        loss.check_labels(tf.constant(labels))
    with pytest.raises(ValueError, match=r"class numbers in 0\.\.2"):
        choose(keras.losses.CategoricalGeneralizedCrossEntropy(), model=model).check_labels(tf.constant(labels))
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    choose(ignoring, model=model).check_labels(tf.constant([-1, 0]))
    choose("mse", model=model).check_labels(tf.constant([[-1.0], [7.0]]))
