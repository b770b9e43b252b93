"""SciPy's methods around a compiled function, as they are used where a library has no such method.

The function is plain TensorFlow: it takes a vector apart, assigns it to the variables, and joins their gradients.
"""

import time

from benchmarks.courses import PAIRS, marks

# A name in reports -> SciPy's name, and options.
METHODS = {
    "SciPy L-BFGS-B": ("L-BFGS-B", {"maxcor": PAIRS, "ftol": 0, "gtol": 0, "maxls": 50, "maxfun": 10**9}),
    "SciPy BFGS": ("BFGS", {"gtol": 0}),
}


def vector_function(problem):
    """(function x -> (f, g), function that makes x the weights, x now) of a `Problem`, arrays of NumPy."""
    import numpy as np
    import tensorflow as tf

    variables = [*problem.model.trainable_variables, *problem.extra]
    sizes = [int(np.prod(v.shape)) for v in variables]

    def assign(x):
        for v, part in zip(variables, tf.split(x, sizes), strict=True):
            v.assign(tf.reshape(part, v.shape))

    @tf.function(autograph=False)
    def compiled(x):
        assign(x)
        with tf.GradientTape() as tape:
            f = problem.value()
        return f, tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(f, variables)], 0)

    def evaluate(x):
        f, g = compiled(tf.constant(x))
        return float(f), g.numpy()

    return evaluate, assign, np.concatenate([np.asarray(v).ravel() for v in variables])


class _Watch:
    """Counts evaluations and seconds between the measurements of a run, and ends it in time.

    Attributes:
        late: whether it has ended the run.
    """

    def __init__(self, evaluate, assign, course, steps, seconds):
        self._evaluate, self._assign, self._course = evaluate, assign, course
        self._marks, self._end = set(marks(steps)), course.seconds + seconds
        self._steps, self._evaluations, self._since = 0, 0, time.perf_counter()
        self.late = False

    def function(self, x):
        self._evaluations += 1
        return self._evaluate(x)

    def callback(self, x):
        self._steps += 1
        self.late = self._course.seconds + time.perf_counter() - self._since > self._end
        if self.late:
            raise StopIteration  # which SciPy takes for the end; the last point is measured then
        if self._steps in self._marks:
            self.measure(x)

    def measure(self, x):
        seconds = time.perf_counter() - self._since
        self._assign(x)
        self._course.spend(seconds, self._evaluations)
        self._evaluations, self._since = 0, time.perf_counter()


def run(method, problem, course, after, seconds):
    """Go on from the weights as they are, and return a sentence that says how it ended; see `courses.run`."""
    import scipy.optimize

    name, options = METHODS[method]
    evaluate, assign, x0 = vector_function(problem)
    evaluate(x0)  # compiles
    watch = _Watch(evaluate, assign, course, after, seconds)
    found = scipy.optimize.minimize(
        watch.function, x0, jac=True, method=name, callback=watch.callback, options={**options, "maxiter": after}
    )
    watch.measure(found.x)
    return "the time is up" if watch.late else str(found.message)
