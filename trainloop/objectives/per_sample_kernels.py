"""Gradients by the kernel of a convolution for every sample at once.

    dK_c[i, j, a, b] = sum_pq  x_c[p s + i, q s + j, a] e_c[p, q, b]        c the sample, s the stride

x_c is what goes into the convolution, e_c the gradient by what comes out of it. For each row i of the kernel that is
one product of matrices, [w a, p q] [p q, b], of x with its columns shifted to all j, for all samples together.
"""

from typing import Any, NamedTuple

import tensorflow as tf


class KernelGradient(NamedTuple):
    """A gradient by one variable in a vectorised pass over samples: the tensors that the pass is to give of it.

    Attributes:
        tensors: of one sample: the gradient itself; or for the kernel of a convolution its input and the gradient by
            its output.
        convolution: the operation that would compute the latter's gradient; None for any other.
    """

    tensors: list
    convolution: Any

    @classmethod
    def of(cls, g):
        """The `KernelGradient` of a tensor of the graph that is traced."""
        op = g.op
        return cls([op.inputs[0], op.inputs[2]], op) if _is_plain(op) else cls([g], None)

    def rows(self, tensors):
        """[C, size of the variable] of the tensors of C samples."""
        if self.convolution is None:
            rows = tensors[0]
        else:
            x, errors = (tf.squeeze(t, 1) for t in tensors)
            rows = _kernel_gradients(x, errors, self.convolution)
        return tf.reshape(rows, [-1, rows.shape[1:].num_elements()])


def _is_plain(op):
    """Whether an operation computes the gradient by a kernel in the way of the top of this file, for one sample."""
    if op.type != "Conv2DBackpropFilter" or op.get_attr("data_format") != b"NHWC":
        return False
    x, errors, kernel = op.inputs[0].shape, op.inputs[2].shape, op.outputs[0].shape
    if not (x.is_fully_defined() and errors.is_fully_defined() and kernel.is_fully_defined()):
        return False
    return x[0] == 1 and x[3] == kernel[2] and op.get_attr("padding") in (b"SAME", b"VALID")


def _kernel_gradients(x, errors, op):
    """[C, height, width, channels in, channels out] of x and e [C, ...]."""
    (height, width, channels, _), (p, q, out) = op.outputs[0].shape, errors.shape[1:]
    strides, steps = op.get_attr("strides")[1:3], op.get_attr("dilations")[1:3]
    if op.get_attr("padding") == b"SAME":
        x = _padded(x, (height, width), (p, q), strides, steps)
    x = tf.transpose(x, [0, 3, 1, 2])
    shifted = tf.stack([x[..., _span(j * steps[1], q, strides[1])] for j in range(width)], 1)  # [C, w, a, rows, q]
    errors = tf.reshape(errors, [-1, p * q, out])

    def row(i):
        part = shifted[..., _span(i * steps[0], p, strides[0]), :]
        return tf.matmul(tf.reshape(part, [-1, width * channels, p * q]), errors)

    return tf.stack([row(i) for i in range(height)], 1)


def _span(first, count, stride):
    return slice(first, first + (count - 1) * stride + 1, stride)


def _padded(x, kernel, out, strides, steps):
    """x with the zeros around it that padding "SAME" means."""
    paddings = [(0, 0)]
    for size, k, count, stride, step in zip(x.shape[1:3], kernel, out, strides, steps, strict=True):
        total = max((count - 1) * stride + (k - 1) * step + 1 - size, 0)
        paddings.append((total // 2, total - total // 2))
    return tf.pad(x, [*paddings, (0, 0)])
