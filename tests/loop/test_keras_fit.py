"""`VectorModel`: Keras's fit, its callbacks and its data, with optimizers that evaluate the objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

import trainloop as tl

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(24, 3))
Y = np.sin(X.sum(1, keepdims=True))


def net(*more):
    seed_generators()
    layers = [keras.layers.Dense(5, "tanh", dtype="float64"), *more, keras.layers.Dense(1, dtype="float64")]
    return keras.Sequential([keras.Input((3,), dtype="float64"), *layers])


def mse():
    return keras.losses.MeanSquaredError(dtype="float64")


def compiled(optimizer=None, model=None, **options):
    vector_model = tl.VectorModel(model or net())
    vector_model.compile(optimizer or tl.LBFGS(), loss=mse(), **options)
    return vector_model


def fit(vector_model, *data, **options):
    return vector_model.fit(*(data or (X, Y)), **{"verbose": 0, "epochs": 3, "batch_size": 24, **options}).history


def fit_batches(vector_model, data, **options):
    return fit(vector_model, data, batch_size=None, shuffle=False, **options)


# --- Callbacks ---


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])


@pytest.mark.thorough
def test_early_stopping():
    model = compiled(tl.SimpleGD(3.0))
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    history = fit(model, epochs=30, callbacks=[stopping])
    best = int(np.argmin(history["loss"]))
    assert len(history["loss"]) < 30
    again = compiled(tl.SimpleGD(3.0))
    fit(again, epochs=best + 1)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_model_checkpoint(tmp_path):
    model = compiled()
    fit(model, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")])
    loaded = keras.models.load_model(tmp_path / "3.keras")
    assert type(loaded) is keras.Sequential
    np.testing.assert_array_equal(loaded(X), model.inner(X))


@pytest.mark.thorough
def test_model_checkpoint_of_weights(tmp_path):
    model = compiled()
    fit(model, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True)])
    other = net()
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(other(X), model.inner(X))


@pytest.mark.thorough
def test_reduce_lr_on_plateau():
    model = compiled(tl.Momentum(0.5))
    fit(model, callbacks=[keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=1e9)])
    assert float(model.optimizer.learning_rate) < 0.5


@pytest.mark.thorough
def test_learning_rate_scheduler():
    model = compiled(tl.SimpleGD(0.5))
    history = fit(model, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 / 3)
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.05, 0.1 / 3], rtol=1e-6)


@pytest.mark.thorough
def test_csv_logger(tmp_path):
    history = fit(compiled(), callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    rows = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    np.testing.assert_allclose(rows["loss"], history["loss"])


@pytest.mark.filterwarnings("ignore:1 steps were not taken")
def test_terminate_on_nan():
    model = compiled(tl.SimpleGD(0.1))
    before = model.get_weights()
    with pytest.warns(UserWarning, match="fit ends with NONFINITE_LOSS"):
        history = fit(model, X, Y * np.nan, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history["loss"]) == 1
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_backup_and_restore(tmp_path):
    model = compiled(tl.SimpleGD(0.1))

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup), Interrupt()])
    resumed = compiled(tl.SimpleGD(0.1))
    history = fit(resumed, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    assert len(history["loss"]) == 2
    whole = compiled(tl.SimpleGD(0.1))
    fit(whole, epochs=4)
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_lambda_callback():
    seen = []
    on_batch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = fit(compiled(), batch_size=12, epochs=1, callbacks=[on_batch])
    assert len(seen) == 2
    assert seen[-1] == history["loss"][0]


@pytest.mark.thorough
def test_history():
    found = fit(compiled(metrics=["mae"]), validation_data=(X, Y))
    assert list(found) == ["loss", "mae", "val_loss", "val_mae"]
    assert found["loss"][2] < found["loss"][0]


@pytest.mark.thorough
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    fit(compiled(), callbacks=[keras.callbacks.TensorBoard(tmp_path, write_graph=False)])
    assert list(tmp_path.rglob("events.out.tfevents.*"))


# --- Data and options ---


def assert_same_steps(vector_model, loop_data, history_of_fit, loss=None, **loop_options):
    """The losses of the epochs are those of a `TrainLoop`, and so are the weights."""
    loop = tl.TrainLoop(net(), tl.LBFGS(), loss or mse(), **loop_options)
    expected = loop.run(loop_data, epochs=3)
    np.testing.assert_allclose(history_of_fit["loss"], expected.epochs["loss"], rtol=1e-12)
    for a, b in zip(vector_model.inner.get_weights(), loop.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def dataset(*arrays, batch=12):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch)


@pytest.mark.thorough
def test_datasets():
    model = compiled()
    found = fit_batches(model, dataset(X, Y))
    loop = tl.TrainLoop(net(), tl.LBFGS(), mse())
    loop.run(dataset(X, Y), epochs=3)
    for a, b in zip(model.inner.get_weights(), loop.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(found["loss"]) == 3


@pytest.mark.thorough
def test_sample_weights():
    weights = RNG.uniform(size=24)
    model = compiled()
    found = fit(model, X, Y, sample_weight=weights)
    assert_same_steps(model, dataset(X, Y, weights, batch=24), found)


@pytest.mark.thorough
def test_class_weight():
    labels = (Y[:, 0] > np.median(Y)).astype("int32")
    seed_generators()
    model = tl.VectorModel(
        keras.Sequential([keras.Input((3,), dtype="float64"), keras.layers.Dense(2, dtype="float64")])
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(tl.LBFGS(), loss=loss, metrics=["accuracy"])
    found = fit(model, X, labels, class_weight={0: 1.0, 1: 3.0}, epochs=1)
    seed_generators()
    first = keras.Sequential([keras.Input((3,), dtype="float64"), keras.layers.Dense(2, dtype="float64")])
    z = first(X).numpy()
    terms = np.log(np.exp(z).sum(1)) - z[np.arange(24), labels]
    assert found["loss"][0] == pytest.approx(np.mean(np.where(labels == 1, 3.0, 1.0) * terms), rel=1e-6)


@pytest.mark.thorough
def test_validation_split():
    model = compiled()
    found = fit(model, validation_split=0.25, batch_size=18)
    assert_same_steps(model, dataset(X[:18], Y[:18], batch=18), found)
    predicted = model.predict(X[18:], verbose=0)
    assert found["val_loss"][-1] == pytest.approx(np.mean((predicted - Y[18:]) ** 2), rel=1e-6)


@pytest.mark.thorough
def test_steps_per_execution():
    one, two = compiled(), compiled(steps_per_execution=2)
    histories = [fit(model, batch_size=12, shuffle=False) for model in (one, two)]
    np.testing.assert_allclose(*(h["loss"] for h in histories), rtol=1e-12)


@pytest.mark.thorough
def test_steps_per_epoch():
    found = fit_batches(compiled(), dataset(X, Y).repeat(), steps_per_epoch=1, epochs=2)
    assert len(found["loss"]) == 2


@pytest.mark.thorough
def test_generators():
    def batches():
        while True:
            yield X, Y

    model = compiled()
    found = fit_batches(model, batches(), steps_per_epoch=1)
    assert_same_steps(model, dataset(X, Y, batch=24), found)


@pytest.mark.thorough
def test_initial_epoch():
    assert len(fit(compiled(), initial_epoch=2)["loss"]) == 1


@pytest.mark.thorough
def test_run_eagerly():
    eager, graph = compiled(run_eagerly=True), compiled()
    np.testing.assert_allclose(fit(eager)["loss"], fit(graph)["loss"], rtol=1e-9)


@pytest.mark.thorough
def test_several_outputs():
    def branches():
        seed_generators()
        x = keras.Input((3,), dtype="float64")
        h = keras.layers.Dense(4, "tanh", dtype="float64")(x)
        outputs = [keras.layers.Dense(1, name=name, dtype="float64")(h) for name in ("a", "b")]
        return keras.Model(x, dict(zip("ab", outputs, strict=True)))

    model = tl.VectorModel(branches())
    options = {"loss": {"a": mse(), "b": mse()}, "loss_weights": {"a": 1.0, "b": 0.5}, "metrics": {"a": ["mae"]}}
    model.compile(tl.LBFGS(), **options)
    targets = {"a": Y, "b": -Y}
    found = fit(model, X, targets, epochs=1)
    plain = branches()
    a, b = (np.mean((plain(X)[k] - targets[k]) ** 2) for k in "ab")
    assert found["loss"][0] == pytest.approx(a + 0.5 * b, rel=1e-6)
    assert found["a_loss"][0] == pytest.approx(a, rel=1e-6)
    assert found["a_mae"][0] == pytest.approx(np.mean(np.abs(plain(X)["a"] - Y)), rel=1e-6)


@pytest.mark.thorough
def test_averages_and_dropout():
    def layers():
        return (
            keras.layers.BatchNormalization(dtype="float64"),
            keras.layers.Dropout(0.3, seed=1, dtype="float64"),
        )

    model = compiled(model=net(*layers()))
    fit_batches(model, dataset(X, Y))
    loop = tl.TrainLoop(net(*layers()), tl.LBFGS(), mse())
    loop.run(dataset(X, Y), epochs=3)
    for a, b in zip(model.inner.get_weights(), loop.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_evaluate_and_predict():
    model = compiled(metrics=["mae"])
    fit(model)
    predicted = model.predict(X, verbose=0)
    np.testing.assert_array_equal(predicted, model.inner(X))
    expected = [np.mean((predicted - Y) ** 2), np.mean(np.abs(predicted - Y))]
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), expected, rtol=1e-6)


@pytest.mark.thorough
def test_a_converged_optimizer_ends_fit_without_a_warning():
    model = compiled(tl.LevenbergMarquardt(), model=net())
    history_of_fit = fit(model, X[:3], Y[:3], batch_size=3, epochs=200)
    assert len(history_of_fit["loss"]) < 200
    assert history_of_fit["loss"][-1] < 1e-20


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tl.VectorModel(3), "model must be a Keras model, received int"),
        (lambda: tl.VectorModel(keras.Sequential([keras.layers.Dense(1)])), "not built; give it an Input"),
        (lambda: compiled("adam"), "must be one of trainloop's, received 'adam'"),
        (lambda: tl.VectorModel(net()).compile(tl.LBFGS()), "compile needs a loss"),
    ],
)
def test_what_cannot_be_fitted(make, words):
    with pytest.raises(ValueError, match=words):
        make()
