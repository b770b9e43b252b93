"""A method at work on a function one step at a time, for tests that look at its state in between; and a function."""

import tensorflow as tf

from trainloop import FunctionObjective


class Stepper:
    """A built optimizer, and the variable `v` that it moves. `step()` is compiled, and returns its `StepResult`."""

    def __init__(self, optimizer, fun, x0, dtype="float64"):
        self.optimizer, self.v, objective = optimizer, tf.Variable(x0, dtype=dtype), FunctionObjective(fun)
        optimizer.build([self.v])

        def step():
            return optimizer.step(objective, objective.value_and_grad(self.v.read_value()))

        self.step = tf.function(step, autograph=False)

    @property
    def x(self):
        return self.v.numpy()

    @property
    def B(self):
        """The optimizer's shared matrix, n x n numbers."""
        return self.optimizer.state["B"].to_dense().numpy()

    def run(self, steps):
        """So many steps in one compiled loop: what each logged, its status, and x after it, arrays [steps, ...]."""
        names = [*self.optimizer.log_dtypes(), "status"]

        def one(i, rows):
            result = self.step()
            logs = {**result.logs, "status": result.status}
            numbers = tf.stack([tf.cast(logs[name], tf.float64) for name in names])
            return i + 1, rows.write(i, tf.concat([numbers, tf.cast(self.v, tf.float64)], 0))

        @tf.function(autograph=False)
        def loop(steps):
            rows = tf.TensorArray(tf.float64, steps, element_shape=[len(names) + self.v.shape[0]])
            return tf.while_loop(lambda i, _: i < steps, one, (tf.constant(0), rows))[1].stack()

        rows = loop(tf.constant(steps)).numpy()
        return {**{name: rows[:, names.index(name)] for name in names}, "x": rows[:, len(names) :]}


def inside_a_ball(c, beyond):
    """(f, g) of f(x) = -sqrt(1 - |x|^2) - c'x, which is nothing beyond |x| = 1: `beyond` there, with NaN for g.

    Its minimum -sqrt(1 + |c|^2) is at c / sqrt(1 + |c|^2).
    """

    def fun(x):
        room = 1 - tf.reduce_sum(tf.square(x))
        root = tf.sqrt(room)  # NaN there, and with it the gradient
        return tf.where(room > 0, -root - tf.tensordot(tf.constant(c), x, 1), beyond), x / root - c

    return fun
