"""Methods over the problems of `trainloop.testing`, with a file that keeps what is done.

One problem and one method at a time; what goes wrong in one leaves the others alone.
"""

import json
import pathlib

import numpy as np
import tensorflow as tf

from trainloop import durable
from trainloop.comparison import profiles
from trainloop.comparison.entrant import make_optimizer
from trainloop.function_objective import LeastSquares
from trainloop.minimize import minimize
from trainloop.testing import problems as all_problems

KINDS = {
    "all": lambda problem: True,
    "smooth": lambda problem: problem.smooth,
    "nonsmooth": lambda problem: not problem.smooth,
    "convex": lambda problem: problem.convex,
}


def of_kind(kind):
    """{name: `Problem`} of one of `KINDS`."""
    return {name: problem for name, problem in all_problems.items() if KINDS[kind](problem)}


def solve(entrant, problem, tolerance, budget):
    """How f falls when a method works on a problem, until it is solved to a tolerance or the budget is spent.

    Args:
        entrant: an `Entrant`.
        problem: a `testing.Problem`.
        tolerance: see `profiles`.
        budget: evaluations.

    Returns:
        {"evaluations": [k], "best": [k], "message": how it ended}: the evaluations at which f became smaller than ever,
        and f there, beginning with x0; both empty where the method cannot take the problem.
    """
    fun = LeastSquares(problem.residuals) if problem.residuals else problem.fun
    f0 = float(problem.fun(problem.x0))
    target = f0 - (1 - tolerance) * (f0 - problem.minimum)
    try:
        # No other test ends a run: whether it is solved is the profile's to say.
        optimizer = make_optimizer(entrant)
        gtol = 0.0 if optimizer.uses_gradient else None
        result = minimize(
            fun, problem.x0, optimizer, max_steps=budget, gtol=gtol, f_target=target, max_evaluations=budget
        )
    except (ValueError, ArithmeticError, tf.errors.OpError) as error:
        return {"evaluations": [], "best": [], "message": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    f = np.append(result.history["f"], result.f)  # before every step, and after the last
    spent = np.append(1, sum(result.history[f"evaluations/{kind}"] for kind in ("f", "Hv", "Gv")))
    paid_for = spent <= budget
    return {**_falling(spent[paid_for], f[paid_for]), "message": result.message}


def _falling(spent, f):
    best = np.fmin.accumulate(np.where(np.isfinite(f), f, np.inf))
    better = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    return {"evaluations": spent[better].tolist(), "best": best[better].tolist()}


class Record:
    """What is done, in a JSON file: {method: {problem: what `solve` returned}}.

    Args:
        path: of the file, which may exist: then it is gone on with.
        tolerance, budget: of all that is in it.

    Raises:
        ValueError: it holds something else, or results for another tolerance or budget.
    """

    def __init__(self, path, tolerance, budget):
        self._path, self._facts = pathlib.Path(path), {"tolerance": tolerance, "budget": budget}
        self.solved = {}
        if self._path.exists():
            content = json.loads(self._path.read_text(encoding="utf-8"))
            found = {name: content.get(name) for name in self._facts}
            if found != self._facts:
                raise ValueError(f"{path} was made with {found}, here it is {self._facts}; use another folder")
            self.solved = content["solved"]

    def add(self, method, problem, found):
        """Keep a result, on the disk too."""
        self.solved.setdefault(method, {})[problem] = found
        durable.replace_text(self._path, json.dumps({**self._facts, "solved": self.solved}, indent=1) + "\n")

    def has(self, method, problem):
        return problem in self.solved.get(method, {})


def costs(solved, methods, names, tolerance):
    """[problems, methods]: evaluations until each problem was solved, infinite where it was not, or not yet.

    Args:
        solved: `Record.solved`.
        methods, names: labels of methods and names of problems.
        tolerance: at least that of the record.
    """
    return np.array(
        [[_cost(solved.get(method, {}).get(name), name, tolerance) for method in methods] for name in names]
    )


def _cost(found, name, tolerance):
    if not found or not found["best"]:
        return np.inf
    return profiles.cost_to_solve(found["evaluations"], found["best"], all_problems[name].minimum, tolerance)
