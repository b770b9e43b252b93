"""What a person sees of a comparison in progress."""

import re

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainloop.comparison import score
from trainloop.comparison.outcome import INTERRUPTED
from trainloop.comparison.running import Watcher, newest


def outcome_line(run, code, reason):
    """`adam, seed 0: complete  test loss 0.1`, or why it is not."""
    if code == 0:
        return f"{run.name}: complete{numbers(newest(run))}"
    if code in INTERRUPTED:
        return f"{run.name}: interrupted"
    return f"{run.name}: failed: {reason}"


class PlainWatcher(Watcher):
    """One line when a run begins and one when it ends.

    Args:
        write: function of a line.
        total: number of runs of the comparison; `done`: how many are complete already.
    """

    def __init__(self, write, total, done):
        self._write, self._total, self._begun = write, total, done

    def begin(self, run):
        self._begun += 1
        self._write(f"[{self._begun}/{self._total}] {run.name}")

    def end(self, run, code, reason):
        self._write(f"  {outcome_line(run, code, reason)}")


class LiveWatcher(Watcher):
    """A bar over all runs, one moving line for each that goes on, and a line that stays for each that has ended.

    Args:
        console: a `rich.console.Console`.
        total, done: as for `PlainWatcher`.
        epochs: function of a run: how many it will have.
    """

    def __init__(self, console, total, done, epochs):
        self._epochs = epochs
        columns = (BarColumn(bar_width=20), TimeRemainingColumn(compact=True), TextColumn("{task.fields[numbers]}"))
        self._bar = Progress(TextColumn("{task.description}", markup=False), *columns, console=console)
        self._all = self._bar.add_task("runs", total=total, completed=done, numbers=f"{done} of {total}")
        self._total, self._lines = total, {}

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def begin(self, run):
        self._lines[run] = self._bar.add_task(run.name, total=self._epochs(run), numbers="starting")

    def look(self, run):
        record = newest(run)
        done = record["epoch"] - 1 if "epoch" in record else None  # as it was
        self._bar.update(self._lines[run], completed=done, numbers=numbers(record).strip() or "starting")

    def end(self, run, code, reason):
        self._bar.remove_task(self._lines.pop(run))
        self._bar.console.print(outcome_line(run, code, reason), highlight=False, markup=False)
        self._bar.advance(self._all)
        done = round(self._bar.tasks[0].completed)
        self._bar.update(self._all, numbers=f"{done} of {self._total}")


def numbers(record):
    """`  epoch 3  step 69  loss 0.31` or `  test loss 0.4  test accuracy 0.9`: a line of a run's log."""
    if record.get("kind") == "test":
        shown = {f"test {name}": value for name, value in record.items() if name != "kind"}
    else:
        shown = {name: record.get(name) for name in ("epoch", "step", "loss")}
    return "".join(f"  {name} {value:.4g}" for name, value in shown.items() if value is not None)


# Of a number with its spread, and of the names of the numbers, in characters.
_CELL, _HEADINGS = 16, 22


def print_table(console, rows):
    """The numbers of all optimizers, one optimizer per column, as many beside each other as there is room for.

    Args:
        console: a `rich.console.Console`.
        rows: what `score.rows` returned.
    """
    fitting = (console.width - _HEADINGS) // (_CELL + 3)
    least, at_once = (_CELL, fitting) if fitting > 0 else (None, 1)
    columns = score.columns(rows)
    texts = {name: score.cells(rows, name) for name in columns}
    for first in range(0, len(rows), at_once):
        shown = rows[first : first + at_once]
        table = Table("")
        for row in shown:
            name = Text(in_lines(row["method"]))
            table.add_column(name, justify="right", overflow="fold", min_width=least, max_width=_CELL)
        table.add_row("runs complete", *(f"{row['complete']} of {row['runs']}" for row in shown))
        for name, (heading, _) in columns.items():
            table.add_row(heading, *texts[name][first : first + at_once])
        console.print(table)


def in_lines(method):
    """An optimizer in lines that fit a column, broken behind `:`, `,` and `=` where that is enough."""
    lines = [""]
    for part in re.findall("[^:,=]+[:,=]*|[:,=]+", method):
        if lines[-1] and len(lines[-1] + part) > _CELL:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def track(console, items, name):
    """Go through items, with a bar on a terminal and a line each otherwise.

    Args:
        console: a `rich.console.Console`.
        items: a list.
        name: function of an item.
    """
    if not console.is_terminal:
        for i, item in enumerate(items, 1):
            console.print(f"[{i}/{len(items)}] {name(item)}", markup=False, highlight=False, soft_wrap=True)
            yield item
        return
    described = TextColumn("{task.description}", markup=False)
    with Progress(described, BarColumn(20), TimeRemainingColumn(compact=True), console=console) as bar:
        task = bar.add_task("", total=len(items))
        for item in items:
            bar.update(task, description=name(item))
            yield item
            bar.advance(task)
