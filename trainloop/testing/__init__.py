"""What an optimizer should pass before it meets a network: problems with known minima, and promises to keep.

    problem = problems["shor"]
    result = tl.minimize(problem.fun, problem.x0, optimizer)
    error = result.f - problem.minimum

`problems` has every `Problem` under its name: classical smooth ones, nonsmooth ones, and two of machine learning.
`check_optimizer(make)` goes through what every subclass of the two contracts must do, `check_combiner(combiner)`
through what every combiner must.
"""

from trainloop.testing.combiner_promises import check_combiner
from trainloop.testing.conformance import ConformanceError, check_optimizer
from trainloop.testing.networks import NETWORKS
from trainloop.testing.nonsmooth import NONSMOOTH
from trainloop.testing.problem import Problem
from trainloop.testing.smooth import SMOOTH, chained_rosenbrock, extended_rosenbrock

problems = {problem.name: problem for problem in (*SMOOTH, *NETWORKS, *NONSMOOTH)}

__all__ = [
    "ConformanceError",
    "Problem",
    "chained_rosenbrock",
    "check_combiner",
    "check_optimizer",
    "extended_rosenbrock",
    "problems",
]
