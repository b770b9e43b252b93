"""Where the first number arose that is not finite: the batch, a layer, the loss, or the gradient of a variable.

A failed step leaves the model as it was before it, dropout seeds included. So its batch can be run once more, outside
of compiled code, with a look at what every layer returns. Nothing lasts of that either.
"""

import contextlib

import keras
import tensorflow as tf

from trainloop import batch_loss, refusals


def first_nonfinite(model, loss, batch, vector, microbatch_size=None):
    """A sentence that says where the first NaN or infinity arises, or None where all is finite.

    Args:
        model: as it was before the step that failed.
        loss: a `BatchLoss`.
        batch: of that step.
        vector: the `VariableVector` of the model.
        microbatch_size: at most so many samples are run at a time; None for all.
    """
    samples = int(batch_loss.samples(batch))
    for first in range(0, samples, microbatch_size or samples):
        last = min(first + (microbatch_size or samples), samples)
        part = tf.nest.map_structure(lambda t, a=first, b=last: t[a:b], batch)
        found = _in_batch(part) or _in_passes(model, loss, part, vector)
        if found:
            return found
    return None


def _in_batch(batch):
    if all(map(_is_finite, tf.nest.flatten(batch))):
        return None
    return "the batch itself has a number that is not finite"


def _in_passes(model, loss, batch, vector):
    found = []
    with tf.GradientTape() as tape:
        # Regularisers look for their weights in the scope, and nowhere else.
        values = [(v, v.value) for v in model.trainable_variables if isinstance(v, keras.Variable)]
        with keras.StatelessScope(values, collect_losses=True), _watch(model, found):
            compared, own, _ = loss.terms(model, batch, training=True)
        f = compared + own
    if found:
        return f"the first layer whose output is not finite is {found[0]}"
    if not _is_finite(compared):
        return "the outputs of all layers are finite, so it arises in the loss function"
    if not _is_finite(own):
        return "it arises in the losses that layers add themselves"
    gradients = tape.gradient(f, vector.variables)
    # A gradient comes into being from the loss back to the first layer.
    for name, gradient in reversed(list(zip(vector.layout.names, gradients, strict=True))):
        if gradient is not None and not _is_finite(tf.convert_to_tensor(gradient)):
            return f"going back from the loss, the first gradient that is not finite is that of {name}"
    return None


@contextlib.contextmanager
def _watch(model, found):
    """Inside, names of layers that return something that is not finite are appended to `found`, inner ones first."""
    layers = refusals.layers_of(model)
    for layer in layers:
        layer.call = _watched(layer, layer.call, found)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call  # the method of the class shows again


def _watched(layer, call, found):
    def watched(*args, **kwargs):
        outputs = call(*args, **kwargs)
        if not all(map(_is_finite, tf.nest.flatten(outputs))):
            found.append(f"{layer.path or layer.name} ({type(layer).__name__})")  # some have no path
        return outputs

    return watched


def _is_finite(tensor):
    if not tf.is_tensor(tensor) or not tensor.dtype.is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
