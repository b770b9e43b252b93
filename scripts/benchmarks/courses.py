"""The course of a run: how large the error was after so many seconds and evaluations of f.

Every run begins with steps of Adam, and an optimizer takes over where they end. Seconds leave out what compiles, the
first step of Adam and of the optimizer, and the measurement of the error.
"""

import numpy as np

# A name on the command line and in reports -> what makes the optimizer; None goes on with Adam.
METHODS = {
    "Adam": None,
    "LBFGS": lambda tl: tl.LBFGS(m=PAIRS),
    "BFGS": lambda tl: tl.BFGS(),
    "SSBFGS": lambda tl: tl.SSBFGS(),
    "SSBroyden": lambda tl: tl.SSBroyden(),
    "LevenbergMarquardt": lambda tl: tl.LevenbergMarquardt(),
    "NaturalGradient": lambda tl: tl.NaturalGradient(),
}

# Those that ask for residuals.
_LEAST_SQUARES = ("LevenbergMarquardt", "NaturalGradient")

# Length of the history of L-BFGS, in all libraries.
PAIRS = 100

# So many measurements of the error in either part of a run, roughly.
_MARKS = 12


class Course:
    """What is known of a run so far.

    Args:
        problem: a `Problem`.

    Attributes:
        seconds, evaluations: spent so far.
        rows: list of (seconds, evaluations, error).
    """

    def __init__(self, problem):
        self._error = problem.error
        self.seconds, self.evaluations, self.rows = 0.0, 0, []

    def spend(self, seconds, evaluations):
        """Count what a part of the run has cost, and measure the error after it."""
        self.seconds += seconds
        self.evaluations += evaluations
        self.rows.append((self.seconds, self.evaluations, self._error()))


def marks(steps):
    """Steps after which the error is measured: 1, and others at equal ratios up to the last one."""
    return np.unique(np.geomspace(1, steps, _MARKS).astype(int)).tolist() if steps else []


def run(method, problem, course, adam, after, seconds):
    """Run Adam and a method of trainloop after it, and return a message that says how it ended.

    Args:
        method: a key of `METHODS`.
        problem: a fresh `Problem`.
        course: gets the rows.
        adam, after: steps of either part.
        seconds: at most so many in the second part.
    """
    loop = _loop(method, problem, adam, after)
    first = _part(loop, problem.points, course, adam, float("inf"))
    return first or _part(loop, problem.points, course, after, seconds) or "all steps are done"


def _loop(method, problem, adam, after):
    import trainloop as tl

    make = METHODS[method]
    phases = [tl.Phase(tl.Adam(problem.rate(adam)), steps=adam), tl.Phase(make(tl))] if make and adam else None
    optimizer = make(tl) if make else tl.Adam(problem.rate(adam + after))
    of_residuals = {"residuals": problem.residuals, "loss_weights": problem.weights}
    loss = {"loss_fn": problem.of_batch} if problem.logarithm and method not in _LEAST_SQUARES else of_residuals
    return tl.TrainLoop(
        problem.model,
        phases or optimizer,
        **loss,
        extra_variables=problem.extra,
        hooks=[tl.Resample(**problem.resample)] if problem.resample else [],
        jit_compile=problem.jit,
    )


def _part(loop, points, course, steps, seconds):
    """Take so many steps, or for so long; how the run ended, None where it may go on."""
    import trainloop as tl

    done, began, pace = 0, course.seconds, None
    for mark in marks(steps):
        while done < mark:
            left = seconds - (course.seconds - began)
            if left <= 0:
                return "the time is up"
            wanted = mark - done if pace is None else int(min(mark - done, max(1, left / pace)))
            try:
                result = loop.run(points, steps=wanted)
            except tl.TrainingError as error:
                result = error.result
            course.spend(result.seconds if done else 0.0, result.evaluations["f"])
            if result.status is not tl.Status.FINISHED:
                return result.message
            pace = result.seconds / wanted if done else None
            done += wanted
    return None
