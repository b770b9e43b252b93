"""Everything public has hints, a docstring that tells of all arguments, and an example that runs."""

import doctest
import functools
import inspect
import logging
import os
import re
import time
import typing

import keras
import matplotlib.figure
import numpy as np
import pytest
import tensorflow as tf

import trainloop as tl

# Arguments that need no words.
UNDERSTOOD = {"self", "cls", "name", "args", "kwargs"}


def public(module=tl, prefix=""):
    """Public classes and functions by name, those of public modules too."""
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.ismodule(found):
            yield from public(found, f"{prefix}{name}.")
        elif callable(found):
            yield prefix + name, found


PUBLIC = {}
for _name, _found in public():
    if _found not in PUBLIC.values():  # once, though it stands in a namespace too
        PUBLIC[_name] = _found
CLASSES = {name: found for name, found in PUBLIC.items() if inspect.isclass(found)}


def function_of(member):
    """The function behind a member of a class, None for anything else."""
    if isinstance(member, (classmethod, staticmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return (
        member.func if isinstance(member, functools.cached_property) else member if inspect.isfunction(member) else None
    )


def methods(cls):
    """(name, function) of the public methods, the constructor and the products that this package has written."""
    members = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.startswith("trainloop"):
            members |= vars(owner)
    for name, member in members.items():
        if getattr(function_of(member), "__module__", "typing") != "typing" and (
            not name.startswith("_") or name in ("__init__", "__matmul__")
        ):
            yield name, function_of(member)


def documented():
    """(name, function, docstring) of everything that is called: functions, constructors and methods."""
    for name, found in PUBLIC.items():
        if name not in CLASSES:
            yield name, found, inspect.getdoc(found)
            continue
        for method, function in methods(found):
            owner = found if method == "__init__" else getattr(found, method)
            yield f"{name}.{method}", function, found.__doc__ if method == "__init__" else inspect.getdoc(owner)


DOCUMENTED = list(documented())


def test_everything_has_hints():
    missing = []
    for name, function, _ in DOCUMENTED:
        signature = inspect.signature(function)
        bare = [
            p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        bare += ["the result"] if signature.return_annotation is signature.empty else []
        missing += [f"{name}: {', '.join(bare)}"] if bare else []
    assert not missing


def test_hints_mean_something():
    later = {"TrainLoop": tl.TrainLoop, "Figure": matplotlib.figure.Figure}  # not imported where they are only hints
    for name, function, _ in DOCUMENTED:
        hints = typing.get_type_hints(function, localns=later)  # raises for a name that means nothing
        assert hints.keys() == function.__annotations__.keys(), name


def test_everything_has_a_docstring():
    missing = [name for name, found in PUBLIC.items() if not found.__doc__]
    missing += [name for name, _, doc in DOCUMENTED if not doc]
    assert not missing


def test_docstrings_tell_of_every_argument():
    untold = []
    for name, function, doc in DOCUMENTED:
        told = set(re.findall(r"\w+", doc or "")) | UNDERSTOOD
        arguments = [argument for argument in inspect.signature(function).parameters if argument not in told]
        untold += [f"{name}: {', '.join(arguments)}"] if arguments else []
    assert not untold


def test_every_class_and_function_has_an_example():
    missing = [name for name, found in PUBLIC.items() if ">>> " not in found.__doc__.partition("Examples:\n")[2]]
    assert not missing


class WhereShown(doctest.OutputChecker):
    """Compares only results that the docstring shows."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def names():
    """What the examples take as given: the package, a small model, its loss and a dozen samples."""
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    given = {
        "keras": keras,
        "logging": logging,
        "os": os,
        "np": np,
        "tf": tf,
        "time": time,
        "tl": tl,
        "x": x,
        "y": np.arange(12, dtype="int32") % 3,
    }
    given["model"] = tl.mlp(input_shape=(4,), outputs=3, hidden=(5,))
    given["loss"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {**{name: getattr(tl, name) for name in tl.__all__}, **given}


@pytest.mark.usefixtures("no_graph_rewriting")
@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.thorough_after(1)
def test_the_example_runs(name, float32, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    runner = doctest.DocTestRunner(WhereShown(), verbose=False, optionflags=flags)
    test = doctest.DocTestParser().get_doctest(PUBLIC[name].__doc__, names(), name, None, None)
    runner.run(test, out=told.append)
    assert not told, "".join(told)
