"""Optimisation problems with known minima: what a method should solve before it meets a network.

    problem = problems["shor"]
    result = tl.minimize(problem.fun, problem.x0, method)
    error = result.f - problem.minimum

`problems` has every `Problem` under its name: classical smooth ones, nonsmooth ones, and two of machine learning.
"""

from trainloop.testing.networks import NETWORKS
from trainloop.testing.nonsmooth import NONSMOOTH
from trainloop.testing.problem import Problem
from trainloop.testing.smooth import SMOOTH, chained_rosenbrock, extended_rosenbrock

problems = {problem.name: problem for problem in (*SMOOTH, *NETWORKS, *NONSMOOTH)}

__all__ = ["Problem", "chained_rosenbrock", "extended_rosenbrock", "problems"]
