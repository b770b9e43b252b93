"""The report of a comparison on the collection of problems."""

import numpy as np

from trainloop import files
from trainloop.comparison import collection, curves, profiles
from trainloop.comparison.html import images, render
from trainloop.testing import problems


def write(path, record, methods, names, kind, tolerances, budget):
    """Write the report and its figures, as far as the optimizers have got.

    Args:
        path: of the HTML file.
        record: a `collection.Record`.
        optimizers, names: labels of optimizers and names of problems.
        kind: what the problems have in common, in a word.
        tolerances: from coarse to fine, none finer than that of the record.
        budget: evaluations.

    Returns:
        {method: how many problems it has solved at each tolerance}.
    """
    costs = {tolerance: collection.costs(record.solved, methods, names, tolerance) for tolerance in tolerances}
    figures = {f"{t:g}": profiles.draw(costs[t], methods, t) for t in tolerances}
    shown = images(figures)
    for tolerance, figure in figures.items():  # alone it needs a legend; on the page there is one for all
        curves.add_legend(figure).savefig(path.with_name(f"profiles-{tolerance}.png"), dpi=150)
    page = render(
        "problems",
        title=f"{len(methods)} methods on {len(names)} problems",
        kind=kind,
        methods=methods,
        names=names,
        budget=budget,
        missing=sum(not record.has(method, name) for method in methods for name in names),
        figures=shown,
        keys=curves.keys(len(methods)),
        headings=[heading for t in shown for heading in (f"solved at τ = {t}", "cheapest there")],
        table=_table(costs, methods),
        finest=f"{tolerances[-1]:g}",
        rows=_rows(costs[tolerances[-1]], record.solved, methods, names),
    )
    files.replace_text(path, page)
    return {method: [int(np.isfinite(c[:, i]).sum()) for c in costs.values()] for i, method in enumerate(methods)}


def _table(costs, methods):
    """{method: [solved, cheapest, ...]}, two cells for every tolerance."""
    table = {method: [] for method in methods}
    for of_tolerance in costs.values():
        solved, cheapest = np.isfinite(of_tolerance), profiles.ratios(of_tolerance) == 1
        for i, method in enumerate(methods):
            table[method] += [int(solved[:, i].sum()), int(cheapest[:, i].sum())]
    return table


def _rows(costs, solved, methods, names):
    """(problem, n, [(evaluations or a dash, message)])."""
    rows = []
    for name, of_problem in zip(names, costs, strict=True):
        found = [solved.get(method, {}).get(name) for method in methods]
        messages = ["not done yet" if one is None else one["message"] for one in found]
        cells = [
            f"{cost:.0f}" if np.isfinite(cost) else _unsolved(one, problems[name])
            for cost, one in zip(of_problem, found, strict=True)
        ]
        rows.append((name, problems[name].n, list(zip(cells, messages, strict=True))))
    return rows


def _unsolved(found, problem):
    """Why, and which part of the way to the minimum was left: `budget, 2e-02 left`."""
    if found is None:
        return "-"
    if not found["best"]:
        return found["status"]
    first, last = found["best"][0], found["best"][-1]
    return f"{found['status']}, {(last - problem.minimum) / (first - problem.minimum):.0e} left"


def endings(record, method, names, costs):
    """`20 budget, 5 refused (ValueError: ...)`: how the runs of an optimizer ended that did not solve their problem.

    Args:
        record: a `collection.Record`.
        method: its label.
        names: of problems.
        costs: [problems], infinite where it was not solved.
    """
    unsolved = [record.solved[method][name] for name, cost in zip(names, costs, strict=True) if np.isinf(cost)]
    statuses, reasons = [one["status"] for one in unsolved], {}
    for one in unsolved:
        if one["status"] == "refused":
            reasons.setdefault("refused", f" ({one['message']})")  # of the first
    return ", ".join(
        f"{statuses.count(status)} {status}{reasons.get(status, '')}" for status in dict.fromkeys(statuses)
    )
