"""What a run would be, in words."""

import json
import math

from trainloop.data.points import Points
from trainloop.runs import specs
from trainloop.vectors.layout import FlatLayout


def describe(data, batches, model, optimizers, settings, directory):
    """Data, model, optimizers, memory, steps, files and settings, for people.

    Args:
        data: a `DataSplit` or `Points`.
        batches: an `ArrayData` of it, or the `Points`.
        model: a built Keras model.
        optimizers: list of them, one for each phase.
        settings: of the command line, by name.
        directory: a `RunDirectory`.
    """
    layout = FlatLayout.of(model.trainable_variables)
    plans = [optimizer.memory_plan(layout.size, layout.dtype) for optimizer in optimizers]
    limits = [phase.steps for phase in specs.phases(settings)]
    titles = [_title(i, limit) for i, limit in enumerate(limits)] if len(limits) > 1 else ["method"]
    sections = [
        f"data: {data!r}",
        f"model: {model.name}, n = {layout.size:,} trainable parameters\n{_variables(model)}",
        *(f"{title}: {in_words(o)}\n{plan}" for title, o, plan in zip(titles, optimizers, plans, strict=True)),
        f"steps: {_steps(batches, settings['epochs'], None if None in limits else sum(limits))}",
        f"files: {', '.join(directory.files(settings['tensorboard']))} in {directory.path}",
        f"settings:\n{json.dumps(settings, indent=2)}",
        "Nothing was done: this is what the same command does without --dry-run.",
    ]
    return "\n".join(sections)


def _title(index, steps):
    return f"phase {index}, " + ("to the end of the run" if steps is None else f"{steps:,} steps at most")


def in_words(optimizer):
    """`SAM(inner=Momentum(learning_rate=0.01, ...), rho=0.05)`: an optimizer with all its arguments."""
    return _called(type(optimizer).__name__, optimizer.get_config())


def _called(name, config):
    arguments = []
    for key, value in config.items():
        if isinstance(value, dict) and "class_name" in value:
            value = _called(value["class_name"], value["config"])
        elif isinstance(value, float):
            value = f"{value:.7g}"  # learning rates are float32
        else:
            value = repr(value)
        arguments.append(f"{key}={value}")
    return f"{name}({', '.join(arguments)})"


def _variables(model):
    """A line for every variable: its name, shape, and how many numbers it has."""
    trained = {id(v) for v in model.trainable_variables}
    rows = [
        (v.path, _shape(v.shape), f"{math.prod(v.shape):,}" + ("" if id(v) in trained else ", not trained"))
        for v in model.variables
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {size}" for name, shape, size in rows)


def _shape(shape):
    return "[" + ", ".join(f"{side:,}" for side in shape) + "]"


def _steps(batches, epochs, steps):
    if isinstance(batches, Points):
        return f"{steps:,} of {batches!r}"
    by_epochs = None if epochs is None else epochs * batches.steps_per_epoch
    total = min(limit for limit in (by_epochs, steps) if limit is not None)
    return f"{total:,} of {batches.batch_size:,} samples, {batches.steps_per_epoch:,} in an epoch"
