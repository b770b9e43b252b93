"""Tests of trainloop.hooks: what a hook and a progress are by themselves; the loop's tests run them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pathlib

import numpy as np
import pytest
from networks import dense_net

from trainloop import SimpleGD, TrainLoop
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.loop import nonfinite

METHODS = ["on_start", "on_block", "on_step", "on_epoch", "on_end"]


def test_a_constructor_of_a_subclass_need_not_call_that_of_hook():
    class Mine(Hook):
        def __init__(self):
            pass

    assert Mine().every_steps is None


@pytest.mark.parametrize("every_steps", [1, 10, np.int64(3)])
def test_every_steps_is_kept_as_an_int(every_steps):
    hook = Hook(every_steps)
    assert type(hook.every_steps) is int
    assert hook.every_steps == every_steps


def test_never_is_the_default():
    assert Hook().every_steps is None


@pytest.mark.parametrize("every_steps", [0, -1, 2.0, True, False, "5"])
def test_every_steps_must_be_a_positive_integer(every_steps):
    with pytest.raises(ValueError, match=f"every_steps must be an integer of at least 1, received {every_steps!r}"):
        Hook(every_steps)


@pytest.mark.parametrize("method", METHODS)
def test_methods_do_nothing_until_overridden(method):
    hook = Hook(5)
    function = getattr(hook, method)
    assert function(*[object()] * len(inspect.signature(function).parameters)) is None
    assert vars(hook) == {"every_steps": 5}


def test_progress_cannot_be_changed_by_a_hook():
    progress = Progress(
        step=7,
        epoch=2,
        epoch_step=2,
        steps_per_epoch=5,
        run_step=7,
        run_steps=10,
        seconds=0.1,
        logs={"loss": np.ones(2)},
        metrics={"accuracy": 0.5},
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        progress.step = 8
    assert progress.step == 7


# --- What hooks see of a loop ------------------------------------------------------------------------------


def attributes_of_a_loop(path):
    """Names `a` in `loop.a` and `self._loop.a` of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value
            named = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", None)
            found |= {node.attr} if named in ("loop", "_loop") else set()
    return found


def members(protocol):
    return {
        name for c in protocol.__mro__ for name in (*vars(c), *vars(c).get("__annotations__", ())) if name[0] != "_"
    }


def test_hooks_use_what_the_protocol_has():
    files = sorted(pathlib.Path(inspect.getfile(Hook)).parent.glob("*.py"))
    used = set().union(*map(attributes_of_a_loop, files))
    assert used
    assert used <= members(LoopProtocol)


def test_rollbacks_use_what_their_protocol_has():
    used = attributes_of_a_loop(pathlib.Path(inspect.getfile(nonfinite)))
    assert used <= members(nonfinite.LoopWithCheckpoints)
    assert {"hooks", "restore_position"} <= used


def test_a_loop_has_all_that_its_protocols_have():
    loop = TrainLoop(dense_net(), SimpleGD(), "mse")
    assert [name for name in members(nonfinite.LoopWithCheckpoints) if not hasattr(loop, name)] == []
