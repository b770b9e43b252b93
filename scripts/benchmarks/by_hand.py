"""Optimizers of other libraries around a compiled function, as they are used where a framework has no such optimizer.

The function is plain TensorFlow: it takes a vector apart, assigns it to the variables, and joins their gradients. SciPy
and PyTorch call it from Python; TensorFlow Probability compiles it with its loop. DeepXDE and tf-levenberg-marquardt
have such a function of their own, and get the loss or its residuals.
"""

import os
import time

from benchmarks.courses import PAIRS, marks


def _variables(problem):
    """The `tf.Variable`s that are trained."""
    return [getattr(v, "value", v) for v in problem.model.trainable_variables] + list(problem.extra)


def vector_function(problem):
    """(compiled x -> (f, g), the same of NumPy arrays, function that makes x the weights, x now) of a `Problem`."""
    import numpy as np
    import tensorflow as tf

    variables = _variables(problem)
    sizes = [int(np.prod(v.shape)) for v in variables]

    def assign(x):
        for v, part in zip(variables, tf.split(x, sizes), strict=True):
            v.assign(tf.reshape(part, v.shape))

    @tf.function(autograph=False, jit_compile=problem.jit)
    def compiled(x):
        assign(x)
        with tf.GradientTape() as tape:
            f = problem.value()
        return f, tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(f, variables)], 0)

    def evaluate(x):
        f, g = compiled(tf.constant(x))
        return float(f), g.numpy()

    return compiled, evaluate, assign, np.concatenate([np.asarray(v).ravel() for v in variables])


class _Watch:
    """Counts evaluations and seconds between the measurements of a run, and ends it in time.

    Attributes:
        evaluations: since the last measurement.
        late: whether it has ended the run.
    """

    def __init__(self, evaluate, assign, course, steps, seconds):
        self._evaluate, self._assign, self._course = evaluate, assign, course
        self._marks, self._end = set(marks(steps)), course.seconds + seconds
        self._steps, self.evaluations, self._since = 0, 0, time.perf_counter()
        self.late = False

    def function(self, x):
        self.evaluations += 1
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
        self._course.spend(seconds, self.evaluations)
        self.evaluations, self._since = 0, time.perf_counter()


def _scipy(name, **options):
    """A runner by SciPy's name of an algorithm, and its options."""

    def run(problem, course, after, seconds):
        import scipy.optimize

        _, evaluate, assign, x0 = vector_function(problem)
        evaluate(x0)  # compiles
        watch = _Watch(evaluate, assign, course, after, seconds)
        found = scipy.optimize.minimize(
            watch.function, x0, jac=True, method=name, callback=watch.callback, options={**options, "maxiter": after}
        )
        watch.measure(found.x)
        return "the time is up" if watch.late else str(found.message)

    return run


def _torch(problem, course, after, seconds):
    """PyTorch's L-BFGS, an iteration at a time."""
    import torch

    _, evaluate, assign, x0 = vector_function(problem)
    evaluate(x0)
    watch = _Watch(evaluate, assign, course, after, seconds)
    x = torch.from_numpy(x0).requires_grad_()
    one = torch.optim.LBFGS(
        [x], max_iter=1, history_size=PAIRS, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        f, g = watch.function(x.detach().numpy())
        x.grad = torch.from_numpy(g)
        return torch.tensor(f, dtype=torch.float64)

    try:
        for _ in range(after):
            one.step(closure)
            watch.callback(x.detach().numpy())
    except StopIteration:
        pass
    watch.measure(x.detach().numpy())
    return "the time is up" if watch.late else "all steps are done"


def _tfp(problem, course, after, seconds):
    """L-BFGS of TensorFlow Probability, compiled with the function, from one measurement to the next."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    compiled, _, assign, x0 = vector_function(problem)

    @tf.function(autograph=False)
    def go_on(most, state):
        return tfp.optimizer.lbfgs_minimize(
            compiled,
            x0 if state is None else None,
            previous_optimizer_results=state,
            num_correction_pairs=PAIRS,
            tolerance=0,
            max_iterations=most,
            max_line_search_iterations=50,
        )

    go_on(tf.constant(0), go_on(tf.constant(0), None))  # compiles
    return _in_parts(go_on, assign, course, after, seconds)


def _deepxde(problem, course, after, seconds):
    """DeepXDE's L-BFGS: TensorFlow Probability's, called from Python, around a function that each part compiles."""
    os.environ["DDE_BACKEND"] = "tensorflow"  # with "tensorflow.compat.v1" nothing in this process is eager any more
    import deepxde
    from deepxde.optimizers.tensorflow.optimizers import lbfgs_minimize

    _, _, assign, _ = vector_function(problem)

    def go_on(most, state):
        deepxde.optimizers.set_LBFGS_options(maxcor=PAIRS, ftol=0, gtol=0, maxiter=int(most))
        return lbfgs_minimize(_variables(problem), problem.value, state)

    return _in_parts(go_on, assign, course, after, seconds)


def _in_parts(go_on, assign, course, after, seconds):
    """L-BFGS of TensorFlow Probability from one measurement to the next; go_on: (iterations, state) -> state."""
    import tensorflow as tf

    state, began = go_on(tf.constant(0), None), course.seconds
    for mark in marks(after):
        if bool(state.failed) or course.seconds - began > seconds:
            break
        before, since = int(state.num_objective_evaluations), time.perf_counter()
        state = go_on(tf.constant(mark), state)
        spent = time.perf_counter() - since
        assign(state.position)
        course.spend(spent, int(state.num_objective_evaluations) - before)
    if bool(state.failed):
        return "the line search failed"
    return "all steps are done" if int(state.num_iterations) >= after else "the time is up"


def _levenberg_marquardt(problem, course, after, seconds):
    """Steps of tf-levenberg-marquardt with its defaults, on a model whose outputs are the residuals."""
    import tensorflow as tf
    from tf_levenberg_marquardt.training import Trainer

    class Residuals:
        """What the trainer asks of a model; the inputs are the numbers of the residuals."""

        built, dtype, trainable_variables = True, tf.float64, _variables(problem)

        @tf.function(autograph=False)
        def __call__(self, rows, training=None):
            return problem.count**0.5 * problem.stacked(rows[:, 0])[:, None]  # the trainer's loss is a mean

    _, _, assign, x0 = vector_function(problem)
    rows = tf.range(problem.count)[:, None]
    inputs = rows, tf.zeros(rows.shape, tf.float64)
    trainer = Trainer(Residuals(), tf.keras.optimizers.SGD(1.0))
    trainer.backup_variables()
    trainer.train_step(*inputs)  # compiles
    assign(x0)
    trainer.backup_variables()
    trainer.reset_damping_factor()
    watch = _Watch(None, lambda _: None, course, after, seconds)
    try:
        for _ in range(after):
            *_, attempts, stopped = trainer.train_step(*inputs)
            watch.evaluations += 1 + int(attempts)
            watch.callback(None)
            if stopped:
                break
    except StopIteration:
        pass
    watch.measure(None)
    return "the time is up" if watch.late else "the damping is at its limit" if stopped else "all steps are done"


# A name in reports -> the module that it needs, and a function that runs it.
METHODS = {
    "SciPy L-BFGS-B": ("scipy", _scipy("L-BFGS-B", maxcor=PAIRS, ftol=0, gtol=0, maxls=50, maxfun=10**9)),
    "SciPy BFGS": ("scipy", _scipy("BFGS", gtol=0)),
    "PyTorch L-BFGS": ("torch", _torch),
    "TFP L-BFGS": ("tensorflow_probability", _tfp),
    "DeepXDE L-BFGS": ("deepxde", _deepxde),
    "tf-levenberg-marquardt": ("tf_levenberg_marquardt", _levenberg_marquardt),
}


def run(method, problem, course, after, seconds):
    """Go on from the weights as they are, and return a message that says how it ended; see `courses.run`.

    What another library raises is such a message, too, and ends nothing but its own run.
    """
    try:
        return METHODS[method][1](problem, course, after, seconds)
    except Exception as error:
        course.spend(0.0, 0)
        return f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
