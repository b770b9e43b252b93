"""What a run would be, said before anything is made for it: no state, no matrix, no file."""

import json
import math

from trainloop.data.points import Points
from trainloop.loop import arguments as loop_arguments
from trainloop.loop import nonfinite
from trainloop.loop.phases import Phase
from trainloop.optimizer import validation
from trainloop.optimizer.saving import SHRINKABLE
from trainloop.vectors.layout import FlatLayout


def check(model, optimizer, settings, directory, facts):
    """Raise what a run would raise, without building the optimizer's state.

    Args:
        model: a built Keras model.
        optimizer: not built.
        settings: with "jit", "eager", "microbatch", "on_nonfinite" and "resume" among them.
        directory: a `RunDirectory`, which is released.
        facts: dict that is recorded with the settings.

    Returns:
        The `MemoryPlan` of the optimizer for this model.

    Raises:
        ValueError: as `TrainLoop` and as `RunDirectory.resume`, as far as checkpoints need not be read; also where the
            state would not fit into the memory that is free.
    """
    directory.release()
    if settings["resume"] and directory.config.exists():
        directory.check({**settings, **facts})
    return check_optimizer(model, optimizer, settings)


def check_optimizer(model, optimizer, settings):
    """Raise for an optimizer for which a run would raise when it or its phase begins, see `check`."""
    loop_arguments.check_kinds(model, optimizer)
    loop_arguments.check_engine(settings["jit"], settings["eager"])
    loop_arguments.check_microbatches(settings["microbatch"], settings["jit"])
    validation.variables(model.trainable_variables)
    layout = FlatLayout.of(model.trainable_variables)
    plan = optimizer.memory_plan(layout.size, layout.dtype)
    plan.check_fits(type(optimizer).__name__, has_storage=hasattr(optimizer, "storage"))
    loop_arguments.check_growth(optimizer, plan.grows, settings["jit"])
    of_state = [entry.name for entry in plan.entries if entry.name.rpartition("/")[2] in SHRINKABLE]
    nonfinite.check_policy(settings["on_nonfinite"], optimizer, of_state + optimizer.shrink_steps(1))
    return plan


def describe(data, batches, model, optimizer, settings, directory, facts):
    """Data, model, optimizer, memory, steps, files and settings, for people.

    Args:
        data: a `DataSplit` or `Points`.
        batches: an `ArrayData` of it, or the `Points`.
        model, settings, directory, facts: see `check`; "epochs", "steps" and "tensorboard" are settings too.
        optimizer: not built; or a list of `Phase`s.

    Raises:
        ValueError: see `check`.
    """
    phases, steps = (optimizer, None) if isinstance(optimizer, list) else ([Phase(optimizer)], settings["steps"])
    plan = check(model, phases[0].optimizer, settings, directory, facts)
    plans = [plan, *(check_optimizer(model, phase.optimizer, settings) for phase in phases[1:])]
    if len(phases) > 1:
        limits = [phase.steps for phase in phases]
        steps = None if None in limits else sum(limits)
    sections = [
        f"data: {data!r}",
        f"model: {model.name}, n = {plan.n:,} trainable parameters\n{_variables(model)}",
        *(text for i, phase in enumerate(phases) for text in (_method(phase, i, len(phases)), str(plans[i]))),
        f"steps: {_steps(batches, settings['epochs'], steps)}",
        f"files: {', '.join(directory.files(settings['tensorboard']))} in {directory.path}",
        f"settings:\n{json.dumps(settings, indent=2)}",
        "Nothing was done: this is what the same command does without --dry-run.",
    ]
    return "\n".join(sections)


def _method(phase, index, count):
    """The line of an optimizer: of a single one, whose steps are those of the run, or of a phase."""
    if count == 1:
        return f"method: {in_words(phase.optimizer)}"
    steps = "to the end of the run" if phase.steps is None else f"{phase.steps:,} steps at most"
    return f"phase {index}, {steps}: {in_words(phase.optimizer)}"


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
