"""Measurements as a table on the terminal, a JSON file and a bar chart."""

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time

import click

# Okabe and Ito (2008): told apart by every kind of colour vision.
_OURS, _OTHERS = "#0072B2", "#999999"

_LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "torch", "jax", "tensorflow_probability")


def publish(folder, name, title, rows, columns, bar):
    """Print rows, and write <folder>/<name>.json and .png.

    Args:
        folder: made if it does not exist.
        name: of the files.
        title: one line.
        rows: list of dicts with "group", "name" and numbers; a number may be missing. Names that begin with
            "trainloop" are drawn in another colour.
        columns: dict of key -> (heading, format such as ".2f").
        bar: the key that the chart shows.
    """
    print_table(title, rows, columns)
    path = write_json(folder, name, title, rows)
    _draw(path.with_suffix(".png"), title, rows, columns[bar][0], bar)
    click.echo(f"written: {path}, {path.with_suffix('.png')}")


def print_table(title, rows, columns):
    """Print rows in groups; the arguments are those of `publish`."""
    click.echo(title)
    for group in dict.fromkeys(row["group"] for row in rows):
        _print_group(group, [row for row in rows if row["group"] == group], columns)


def write_json(folder, name, title, rows, **more):
    """Write rows, and more under other keys, with what is known of the machine; the path of the file.

    Args:
        folder, name, title, rows: see `publish`.
    """
    path = pathlib.Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"title": title, "machine": _machine(), "versions": _versions(), "rows": rows, **more}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path


def _print_group(group, rows, columns):
    width = max(28, *(len(row["name"]) + 2 for row in rows))
    headings = [heading for heading, _ in columns.values()]
    click.echo(f"\n{group:<{width}}" + "".join(f"{heading:>{len(heading) + 3}}" for heading in headings))
    for row in rows:
        cells = [format(row[key], form) if row.get(key) is not None else "" for key, (_, form) in columns.items()]
        padded = (f"{cell:>{len(heading) + 3}}" for cell, heading in zip(cells, headings, strict=True))
        click.echo(f"{row['name']:<{width}}" + "".join(padded))


def _draw(path, title, rows, label, bar):
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(row["group"] for row in rows))
    heights = [sum(row["group"] == group and row.get(bar) is not None for row in rows) for group in groups]
    figure = Figure(figsize=(7.5, 0.32 * sum(heights) + 0.9 * len(groups) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[h + 1 for h in heights])[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        shown = [row for row in reversed(rows) if row["group"] == group and row.get(bar) is not None]
        colours = [_OURS if row["name"].startswith("trainloop") else _OTHERS for row in shown]
        bars = axes.barh([row["name"] for row in shown], [row[bar] for row in shown], color=colours)
        axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize="small")
        axes.margins(x=0.12)
        axes.set_title(group, fontsize="small", loc="left")
        axes.set_xlabel(label, fontsize="small")
        axes.tick_params(labelsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def compared(group, seconds, reference, scale=1.0):
    """Rows of measured seconds: median, smallest and largest, and the reference's median over each one's.

    Args:
        group: what they have in common.
        seconds: dict of name -> list of seconds.
        reference: one of the names.
        scale: from seconds to the unit of the table.
    """
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "group": group,
            "name": name,
            "median": scale * medians[name],
            "low": scale * min(times),
            "high": scale * max(times),
            "ratio": medians[reference] / medians[name],
        }
        for name, times in seconds.items()
    ]


def alternate(jobs, repeats):
    """Wall-clock seconds of each job, taken in turn so that a busy machine disturbs all alike.

    The first round is not counted: it traces and compiles.
    """
    seconds = {name: [] for name in jobs}
    for round_number in range(repeats + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if round_number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _machine():
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def _versions():
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
