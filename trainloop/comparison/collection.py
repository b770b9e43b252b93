"""Methods over the problems of `trainloop.testing`, with a file that keeps what is done.

One problem and one optimizer at a time; what goes wrong in one leaves the others alone.
"""

import json
import pathlib

import numpy as np

from trainloop import files
from trainloop.comparison import profiles
from trainloop.comparison.entrant import make_optimizer
from trainloop.errors import users_line
from trainloop.loop.minimizer import minimize
from trainloop.objectives.function import LeastSquares
from trainloop.runs import specs, user_code
from trainloop.status import Status
from trainloop.testing import problems as all_problems

KINDS = {
    "all": lambda problem: True,
    "smooth": lambda problem: problem.smooth,
    "nonsmooth": lambda problem: not problem.smooth,
    "convex": lambda problem: problem.convex,
}


# How a run that did not solve its problem ended, in a word.
_ENDINGS = {Status.FINISHED: "budget", Status.EVALUATIONS_SPENT: "budget", Status.NONFINITE_LOSS: "diverged"}
_ENDINGS |= {Status.NONFINITE_STEP: "diverged", Status.NONFINITE_GRADIENT: "diverged", Status.TARGET_REACHED: "budget"}


def of_kind(kind):
    """{name: `Problem`} of one of `KINDS`."""
    return {name: problem for name, problem in all_problems.items() if KINDS[kind](problem)}


def solve(entrant, problem, tolerance, budget):
    """How f falls when an optimizer works on a problem, until it is solved to a tolerance or the budget is spent.

    Args:
        entrant: an `Entrant`.
        problem: a `testing.Problem`.
        tolerance: see `profiles`.
        budget: evaluations.

    Returns:
        {"evaluations": [k], "best": [k], "status": in a word, "message": how it ended}: the evaluations at which f
        became smaller than ever, and f there, beginning with x0; both empty where the optimizer cannot take the
        problem, or fails while it is traced.
    """
    fun = LeastSquares(problem.residuals) if problem.residuals else problem.fun
    f0 = float(problem.fun(problem.x0))
    target = f0 - (1 - tolerance) * (f0 - problem.minimum)
    try:
        # No other test ends a run: whether it is solved is the profile's to say.
        optimizer = make_optimizer(entrant)
        each = [phase.optimizer for phase in optimizer] if entrant.then else [optimizer]
        gtol = 0.0 if all(one.uses_gradient for one in each) else None
        result = minimize(
            fun, problem.x0, optimizer, max_steps=budget, gtol=gtol, f_target=target, max_evaluations=budget
        )
    except Exception as error:  # whatever a user's optimizer raises
        message = f"{type(error).__name__}{users_line(error)}: {' '.join(str(error).split())}"
        return {"evaluations": [], "best": [], "status": "refused", "message": message}
    f = np.append(result.history["f"], result.f)  # before every step, and after the last
    spent = np.append(1, sum(result.history[f"evaluations/{kind}"] for kind in ("f", "Hv", "Gv")))
    paid_for = spent <= budget
    found = _falling(spent[paid_for], f[paid_for])
    return {**found, "status": _ENDINGS.get(result.status, result.status.name.lower()), "message": result.message}


def _falling(spent, f):
    best = np.fmin.accumulate(np.where(np.isfinite(f), f, np.inf))
    better = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    return {"evaluations": spent[better].tolist(), "best": best[better].tolist()}


class Record:
    """What is done, in a JSON file: {method: {problem: what `solve` returned}}, and digests of the users' files.

    Args:
        path: of the file, which may exist: then it is gone on with.
        tolerance, budget: of all that is in it.

    Raises:
        ValueError: it holds something else, or results for another tolerance or budget.
    """

    def __init__(self, path, tolerance, budget):
        self._path, self._facts = pathlib.Path(path), {"tolerance": tolerance, "budget": budget}
        self.solved, self._code = {}, {}
        if self._path.exists():
            try:
                content = json.loads(self._path.read_text(encoding="utf-8"))
                found = {name: content[name] for name in self._facts}
                self.solved, self._code = content["solved"], content["code"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged ({error!r}); begin again in another folder") from error
            if found != self._facts:
                raise ValueError(f"{path} was made with {found}, here it is {self._facts}; use another folder")

    def add(self, entrant, problem, found):
        """Keep a result, on the disk too."""
        self.solved.setdefault(entrant.label, {})[problem] = found
        self._code[entrant.label] = _code_of(entrant)
        content = {**self._facts, "code": self._code, "solved": self.solved}
        files.replace_text(self._path, json.dumps(content) + "\n")

    def is_outdated(self, entrant):
        """Whether the file that the optimizer is in has changed since."""
        return self._code.get(entrant.label, _code_of(entrant)) != _code_of(entrant)

    def forget(self, entrant):
        """Drop the results of an optimizer."""
        self.solved.pop(entrant.label, None)
        self._code.pop(entrant.label, None)

    def has(self, method, problem):
        return problem in self.solved.get(method, {})


def _code_of(entrant):
    return user_code.digests(*specs.values(entrant.phases))


def costs(solved, methods, names, tolerance):
    """[problems, optimizers]: evaluations until each problem was solved, infinite where it was not, or not yet.

    Args:
        solved: `Record.solved`.
        optimizers, names: labels of optimizers and names of problems.
        tolerance: at least that of the record.
    """
    return np.array(
        [[_cost(solved.get(method, {}).get(name), name, tolerance) for method in methods] for name in names]
    )


def _cost(found, name, tolerance):
    if not found or not found["best"]:
        return np.inf
    return profiles.cost_to_solve(found["evaluations"], found["best"], all_problems[name].minimum, tolerance)
