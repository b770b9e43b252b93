"""Performance and data profiles: many optimizers on many problems in two curves each.

cost[p, s] is what optimizer s pays to solve problem p, infinite where it does not.

    performance profile  rho_s(tau) = share of the problems with  cost[p, s] <= tau min_s' cost[p, s']
        Dolan and Moré (2002), "Benchmarking optimization software with performance profiles", Math. Program. 91, (2.1).
        rho_s(1) is how often s is the cheapest, the height at the right how much it solves at all.
    data profile         d_s(kappa) = share of the problems with  cost[p, s] <= kappa
        Moré and Wild (2009), "Benchmarking derivative-free optimization algorithms", SIAM J. Optim. 20, (2.7). They
        divide by n + 1, the price of a gradient by differences; here a gradient costs about as much as a value, so a
        cost is a number of evaluations.

A problem counts as solved at tolerance tau when f(x0) - f(x) >= (1 - tau) (f(x0) - f_L), f_L being its minimum (the
same, (2.2)).
"""

import numpy as np

from trainloop.comparison import curves
from trainloop.plots.figure import Picture, label, set_logarithmic


def cost_to_solve(evaluations, best, f_low, tolerance):
    """Evaluations until a problem was solved.

    Args:
        evaluations: [k] done until each improvement; the first entry is that of x0.
        best: [k] smallest f so far; the first entry is f(x0).
        f_low: the problem's minimum.
        tolerance: in (0, 1).

    Returns:
        float; infinite if it was not solved.
    """
    best = np.asarray(best, float)
    solved = np.flatnonzero(best[0] - best >= (1 - tolerance) * (best[0] - f_low))
    return float(evaluations[solved[0]]) if solved.size else np.inf


def ratios(costs):
    """cost[p, s] / min_s' cost[p, s']; infinite where an optimizer does not solve a problem.

    Args:
        costs: [problems, optimizers].
    """
    cheapest = np.min(costs, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(costs), costs / cheapest, np.inf)


def shares(values):
    """The curve of `share of the entries <= x` as corners (x, share).

    Args:
        values: [problems]; infinite ones are never reached.

    Returns:
        (x [k], share [k]) with x growing: at x[i] the share jumps to share[i].
    """
    x, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return x, np.cumsum(counts) / len(values)


def draw(costs, methods, tolerance):
    """Performance profile above, data profile below.

    Args:
        costs: [problems, optimizers].
        methods: their names.
        tolerance: for the title.

    Returns:
        `Picture`.
    """
    figure = Picture(figsize=(5.4, 5.6), layout="constrained")
    figure.suptitle(f"tolerance {tolerance:g}, {len(costs)} problems")
    above, below = figure.subplots(2, 1)
    for axes, values, unit in (
        (above, ratios(costs), "evaluations over those of the cheapest method"),
        (below, costs, "evaluations of f, its gradient or a curvature product"),
    ):
        finite = values[np.isfinite(values)]
        end = 1.3 * np.max(finite, initial=2)
        for i in range(len(methods)):
            x, share = shares(values[:, i])
            x, share = np.concatenate([[1], x, [end]]), np.concatenate([[0], share, share[-1:] if share.size else [0]])
            axes.step(x, share, where="post", label=label(methods[i]), linewidth=2, **curves.style(i))
        axes.set_xlim(1, end)
        axes.set_ylim(-0.02, 1.02)
        set_logarithmic(axes.xaxis)
        axes.set_xlabel(f"{unit} (log)")
        axes.set_ylabel("share of the problems solved")
        axes.grid(alpha=0.3)
    return figure
