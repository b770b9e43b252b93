"""The report of a comparison on one network."""

import json

from trainloop import files
from trainloop.comparison import curves, layers, score
from trainloop.comparison.html import images, render
from trainloop.comparison.outcome import COMPLETE, FAILED


def write(comparison, outcomes, target=None):
    """Write summary.json, the curves and report.html of a comparison, as far as it has got.

    Args:
        comparison: a `Comparison`.
        outcomes: list of `Outcome`, one per run.
        target: a `Target`; None takes the smallest training loss that every complete run reached.

    Returns:
        The path of the report.
    """
    given, target = target is not None, target or score.common_target(outcomes)
    found = score.rows(outcomes, target)
    summary = {"target": None if target is None else {target.name: target.value}, "given": given, "methods": found}
    files.replace_text(comparison.path / "summary.json", json.dumps(summary, indent=2) + "\n")
    runs = score.of_runs(outcomes, target)
    figures = {axis: curves.draw(outcomes, axis) for axis in curves.AXES}
    shown = images(figures)
    for axis, figure in figures.items():
        if figure is not None:  # alone it needs a legend; on the page there is one for all
            curves.add_legend(figure).savefig(comparison.path / f"by-{axis}.png", dpi=150)
    page = render(
        "networks",
        title=_title(comparison),
        common=" ".join(argument for argument in comparison.common if argument != "--layer-norms"),
        seeds=len(comparison.seeds),
        complete=sum(outcome.state == COMPLETE for outcome in outcomes),
        total=len(outcomes),
        failures=[outcome for outcome in outcomes if outcome.state == FAILED],
        others=[outcome for outcome in outcomes if outcome.state not in (COMPLETE, FAILED)],
        target=target,
        chosen=None if target is None else target == score.common_target(outcomes),
        columns=score.columns(found),
        results=_table(found, score.headline(found)),
        runs=_table(runs, score.columns(found)),
        names=[row["method"] for row in found],
        keys=curves.keys(len(found)),
        figures=shown,
        layers=images(_layers(outcomes)),
        outcomes=outcomes,
        configurations=_configurations(outcomes),
        root=comparison.path,
    )
    path = comparison.path / "report.html"
    files.replace_text(path, page)
    return path


def given_target(comparison):
    """The `Target` that the last report was asked for; None where it was asked for none, or is not there."""
    try:
        summary = json.loads((comparison.path / "summary.json").read_text(encoding="utf-8"))
        ((name, value),) = summary["target"].items() if summary["given"] else ()
    except (OSError, ValueError, KeyError):
        return None
    return score.Target(name, value)


def _table(found, columns):
    """(headings, [(row, texts)]) of a table."""
    by_column = [score.cells(found, column) for column in columns]
    texts = zip(*by_column, strict=True) if by_column else [()] * len(found)
    return [heading for heading, _ in columns.values()], list(zip(found, texts, strict=True))


def _title(comparison):
    given = dict(argument.removeprefix("--").partition("=")[::2] for argument in comparison.common)
    return f"{given.get('model', 'networks')} on {given.get('dataset', 'data')}"


def _layers(outcomes):
    first = _first_of_each(outcomes)
    limits = layers.limits(first)
    return {outcome.run.name: layers.draw(outcome, limits) for outcome in first}


def _first_of_each(outcomes):
    """The first run of every optimizer that has steps."""
    first = {}
    for outcome in outcomes:
        if outcome.log.history:
            first.setdefault(outcome.run.entrant.label, outcome)
    return list(first.values())


def _configurations(outcomes):
    """{method: config.json of its first run as text}."""
    first = {}
    for outcome in outcomes:
        if outcome.config:
            first.setdefault(outcome.run.entrant.label, json.dumps(outcome.config, indent=2))
    return first
