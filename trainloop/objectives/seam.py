"""Where the Gauss-Newton matrix G = J' L J splits f = compare(outputs of the model): at one tensor z.

    z                                   what J is the Jacobian of
    the model's output                  as a rule
    the logits                          where the output is a softmax or sigmoid of them, and the loss computes with the
                                        logits that Keras keeps beside it
    several of these, end to end        where there are several outputs

Keras's crossentropies of probabilities look for the logits behind a softmax or sigmoid and compute with them, which is
exact where probabilities round to 0 or 1. Split there, L is the Hessian of the loss in the logits: positive
semidefinite, and G is the Fisher matrix of the model's distribution.
"""

import tensorflow as tf

from trainloop.objectives.outputs import joined

_ACTIVATIONS = {"Softmax": tf.nn.softmax, "Sigmoid": tf.sigmoid}


class Seam:
    """The seam of one pass.

    Args:
        predictions: what the model put out: nested structure of floating tensors.
        compare: function of such a structure -> f [].

    Attributes:
        z: the tensor: of any shape where there is one output, [k] where there are several.
    """

    def __init__(self, predictions, compare):
        self._structure, self._compare = predictions, compare
        outputs = tf.nest.flatten(predictions)
        self._activations = [_activation(output) for output in outputs]
        if any(self._activations):
            read = self._logits_read(outputs)
            self._activations = [a if r else None for a, r in zip(self._activations, read, strict=True)]
        self.z, self._apart = joined(self._tensors(predictions))

    @property
    def at_logits(self):
        """For each output whether z has the logits behind its softmax or sigmoid in place of it."""
        return [activation is not None for activation in self._activations]

    def of(self, predictions):
        """z of the predictions of another pass."""
        return joined(self._tensors(predictions))[0]

    def compare(self, z):
        """f [] of a tensor like z."""
        outputs = [
            _activated(activation, part) for activation, part in zip(self._activations, self._apart(z), strict=True)
        ]
        return self._compare(tf.nest.pack_sequence_as(self._structure, outputs))

    def _tensors(self, predictions):
        outputs = tf.nest.flatten(predictions)
        return [o._keras_logits if a else o for a, o in zip(self._activations, outputs, strict=True)]

    def _logits_read(self, outputs):
        """Whether the loss computes with the logits of each output."""
        logits = [getattr(output, "_keras_logits", output) for output in outputs]
        with tf.GradientTape() as tape:
            tape.watch(logits)
            probabilities = [tf.stop_gradient(output) for output in outputs]
            for output, z, activation in zip(probabilities, logits, self._activations, strict=True):
                if activation:
                    output._keras_logits = z
            f = self._compare(tf.nest.pack_sequence_as(self._structure, probabilities))
        return [gradient is not None for gradient in tape.gradient(f, logits)]


def _activated(activation, z):
    """What a layer with this activation puts out, with its logits beside it as Keras does it; z itself without one."""
    if activation is None:
        return z
    output = activation(z)
    output._keras_logits = z
    return output


def _activation(output):
    """The function that made an output of the logits that Keras keeps beside it; None where it keeps none."""
    logits = getattr(output, "_keras_logits", None)
    if logits is None or logits.dtype != output.dtype:
        return None
    if tf.is_symbolic_tensor(output):
        return _ACTIVATIONS.get(output.op.type)
    for activation in _ACTIVATIONS.values():
        if bool(tf.reduce_all(tf.equal(activation(logits), output))):
            return activation
    return None
