"""What the meta.json of a run holds, by name and type, so that nothing else is believed.

A checksum tells damage. It does not tell a file that was written by hand, or by a program that was wrong: a run that
believed it would fail far from the cause, or count to a goal that is never reached.
"""

import math
import numbers

_COUNT = "a whole number from 0 to 2^53"


def check(step, meta):
    """Raise unless a dict is what `contents.save` writes for a step.

    Args:
        step: that of the folder's name.
        meta: what was read.

    Raises:
        ValueError: names the entry, what it should be, and what it is.
    """
    run, hooks, described = (_dict(meta, name) for name in ("run", "hooks", "of"))
    for within, found in (("hooks", hooks), ("of", described)):
        for name in found:
            _dict(found, name, within)
    if "data set" not in described:
        raise ValueError("it does not say what data set it was made with")
    _dict(meta, "versions")
    _count(meta, "rollbacks")
    for name in ("step", "epoch", "index", "first_step", "first_epoch"):
        _count(run, name, "run")
    _number(run, "seconds", "run")
    _evaluations(run)
    _recorder(_dict(run, "recorder", "run"))
    for name, at_most, what in (("first_step", step, "step"), ("first_epoch", run["epoch"], "epoch")):
        if run[name] > at_most:
            raise ValueError(f"run.{name} is {run[name]}, and the {what} of the checkpoint {at_most}")
    if run["step"] != step:
        raise ValueError(f"run.step is {run['step']}, and the folder is that of step {step}")


def _evaluations(run):
    first = run.get("first_evaluations")
    if first is not None:
        for kind in _dict(run, "first_evaluations", "run"):
            _count(first, kind, "run.first_evaluations")


def _recorder(recorder):
    epochs, sums = recorder.get("epochs"), _dict(recorder, "sums", "run.recorder")
    if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
        raise _wrong("run.recorder.epochs", "a list of objects", epochs)
    if any(epochs[0].keys() - epoch.keys() for epoch in epochs):
        raise _wrong("run.recorder.epochs", f"summaries of {', '.join(epochs[0])}", [list(epoch) for epoch in epochs])
    _count(sums, "epoch", "run.recorder.sums")
    for name in ("loss", "samples"):
        _number(sums, name, "run.recorder.sums", finite=False)
    if recorder.get("last_finite_loss") is not None:
        _number(recorder, "last_finite_loss", "run.recorder")


def _dict(found, name, within=""):
    if not isinstance(found.get(name), dict):
        raise _wrong(_path(within, name), "an object", found.get(name))
    return found[name]


def _count(found, name, within=""):
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise _wrong(_path(within, name), _COUNT, value)


def _number(found, name, within, finite=True):
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or (finite and not math.isfinite(value)):
        raise _wrong(_path(within, name), "a finite number" if finite else "a number", value)


def _path(within, name):
    return f"{within}.{name}" if within else name


def _wrong(path, expected, value):
    text = repr(value)
    return ValueError(f"{path} should be {expected}, received {text if len(text) <= 40 else text[:40] + '...'}")
