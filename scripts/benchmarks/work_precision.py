"""Errors over seconds and over evaluations: runs of many optimizers as a table, a JSON file and diagrams."""

import statistics

import click

from benchmarks import by_hand, courses
from benchmarks.benchmarking import missing, name_missing
from benchmarks.reporting import print_table, write_json

COLUMNS = {
    "error": ("median error", ".2e"),
    "low": ("lowest", ".2e"),
    "high": ("highest", ".2e"),
    "seconds": ("seconds", ".1f"),
    "evaluations": ("evaluations", ",.0f"),
    "milliseconds": ("ms/evaluation", ".2f"),
}


METHODS = [*courses.METHODS, *by_hand.METHODS]


def available(chosen):
    """The names among those chosen, or among all, that can be run here; the others are named."""
    left_out = missing({name: module for name, (module, _) in by_hand.METHODS.items()})
    name_missing(left_out)
    return [name for name in METHODS if name in (chosen or METHODS) and name not in left_out]


def record(method, problem, share, seconds):
    """Run an optimizer on a fresh `Problem`.

    Args:
        method: one of `METHODS`.
        problem: a `Problem`.
        share: of the steps of its budget.
        seconds: at most so many after Adam.

    Returns:
        {"rows": of the `Course`, "error", "seconds", "evaluations": of the last one, "milliseconds": for each
        evaluation after Adam, "ended": a message}.
    """
    adam, after = round(share * problem.adam), max(2, round(share * problem.after))
    course = courses.Course(problem)
    if method in courses.METHODS:
        ended = courses.run(method, problem, course, adam, after, seconds)
    else:
        if adam:
            courses.run("Adam", problem, course, adam, 0, seconds)
        ended = by_hand.run(method, problem, course, after, seconds)
    last = dict(zip(("seconds", "evaluations", "error"), course.rows[-1], strict=True))
    return {"rows": course.rows, **last, "milliseconds": _milliseconds(course.rows, adam), "ended": ended}


def _milliseconds(rows, adam):
    """Per evaluation, from the first row after Adam's last one; the first step after it is not timed."""
    first = len(courses.marks(adam))
    timed = rows[first:]
    if len(timed) < 2 or timed[-1][1] == timed[0][1]:
        return None
    return 1e3 * (timed[-1][0] - timed[0][0]) / (timed[-1][1] - timed[0][1])


def publish(folder, name, title, records):
    """Print a table of medians, and write <folder>/<name>.json and a diagram for each problem.

    Args:
        folder: made if it does not exist.
        name: of the files.
        title: one line.
        records: list of what `record` returns with "problem", "method" and "seed".
    """
    rows = _medians(records)
    print_table(title, rows, COLUMNS)
    path = write_json(folder, name, title, rows, runs=records)
    timed = [record for record in records if record["seconds"] > 0]  # nothing else can be drawn over a logarithm
    problems = list(dict.fromkeys(record["problem"] for record in timed))
    for problem in problems:
        own = [record for record in timed if record["problem"] == problem]
        _draw(path.with_name(f"{name}-{problem}.png"), problem, own)
    click.echo(f"written: {path}, and {name}-*.png beside it for {', '.join(problems)}")


def _medians(records):
    rows = []
    for problem, method in dict.fromkeys((record["problem"], record["method"]) for record in records):
        own = [record for record in records if (record["problem"], record["method"]) == (problem, method)]
        errors = [record["error"] for record in own]
        row = {"group": problem, "name": method, "error": statistics.median(errors)}
        row |= {"low": min(errors), "high": max(errors)}
        for key in ("seconds", "evaluations", "milliseconds"):
            known = [record[key] for record in own if record[key] is not None]
            row[key] = statistics.median(known) if known else None
        rows.append(row)
    return rows


def _draw(path, problem, records):
    """A line for each run; runs of one optimizer have one colour."""
    from trainloop.comparison.curves import style
    from trainloop.plots.figure import Picture

    figure = Picture(figsize=(8, 3.8), layout="constrained")
    figure.suptitle(problem)
    panels = figure.subplots(1, 2, sharey=True)
    shown = list(dict.fromkeys(record["method"] for record in records))
    for axes, column, label in zip(panels, (0, 1), ("seconds", "evaluations of f"), strict=True):
        for record in records:
            points = [(row[column], row[2]) for row in record["rows"] if row[column] > 0]
            known = axes.get_legend_handles_labels()[1]
            label_once = record["method"] if record["method"] not in known else None
            axes.plot(*zip(*points, strict=True), label=label_once, linewidth=1, **style(shown.index(record["method"])))
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("relative error")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(path, dpi=120)
