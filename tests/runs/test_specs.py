"""Specifications of phases: what is read, what is added to them, and what is rejected."""

import pytest

from trainloop import LBFGS, Adam, Phase
from trainloop.runs import phases, specs
from trainloop.runs.specs import PhaseSpec

ADAM = {"optimizer": "adam", "options": ["learning_rate=0.01"], "steps": 20}


def test_phases_are_the_optimizer_and_what_follows():
    asked = specs.phases({**ADAM, "then": ["mine.py:Mine:betas=(0.9,0.99),k=1,--steps=5", "lbfgs"]})
    assert asked == [
        PhaseSpec("adam", ("learning_rate=0.01",), 20),
        PhaseSpec("mine.py:Mine", ("betas=(0.9,0.99)", "k=1"), 5),
        PhaseSpec("lbfgs"),
    ]
    assert specs.phases({**ADAM, "steps": None}) == [PhaseSpec("adam", ("learning_rate=0.01",))]
    assert specs.names(asked) == "adam, then mine.py:Mine, then lbfgs"
    assert specs.values(asked) == ["adam", "0.01", "mine.py:Mine", "(0.9,0.99)", "1", "lbfgs"]


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (["lbfgs"], ["lbfgs:--steps=7"]),
        (["adam:--steps=2", "lbfgs:m=3"], ["adam:--steps=2", "lbfgs:m=3,--steps=7"]),
        (["mine.py:Mine"], ["mine.py:Mine:--steps=7"]),
        (["lbfgs:m=3,--steps=9"], ["lbfgs:m=3,--steps=9"]),
    ],
)
def test_the_last_phase_gets_steps_where_it_has_none(then, expected):
    assert list(specs.with_last_steps(then, 7)) == expected
    assert specs.without_goal(then) == specs.without_goal(expected)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (["lbfgs:m=3", "adam"], r"phase 1, lbfgs, needs a number of steps, .*give lbfgs:m=3,--steps=N"),
        (["lbfgs:--steps=0"], "--steps must be a positive integer, received '0'"),
        (["lbfgs:--steps"], "--steps must be a positive integer, received ''"),
        (["lbfgs:--steps=2,--steps=3"], "--steps is given twice"),
        (["lbfgs:--batch-size=full"], "the only option of a phase is --steps=N, received --batch-size=full"),
        ([3], "3 is no optimizer"),
    ],
)
def test_what_is_wrong_with_phases_is_said(then, message):
    with pytest.raises(ValueError, match=message):
        specs.phases({**ADAM, "then": then})


def test_every_phase_but_the_last_one_needs_steps():
    with pytest.raises(ValueError, match="phase 0, adam, needs a number of steps, because lbfgs follows"):
        specs.phases({**ADAM, "steps": None, "then": ["lbfgs"]})


def test_phases_are_made_of_specifications():
    asked = specs.phases({**ADAM, "then": ["lbfgs:m=3"]})
    made = phases.optimizers(asked)
    first, second = phases.in_phases(asked, made)
    assert isinstance(first, Phase)
    assert (type(first.optimizer), first.steps, type(second.optimizer), second.steps) == (Adam, 20, LBFGS, None)
    assert second.optimizer.get_config()["m"] == 3
    assert phases.in_phases(asked[:1], made[:1]) is made[0]


def test_epochs_that_end_before_the_last_phase_are_refused():
    asked = specs.phases({**ADAM, "then": ["lbfgs"]})
    phases.check_epochs(asked, None, 5)
    phases.check_epochs(asked, 5, 5)
    with pytest.raises(ValueError, match="--epochs 4 are 20 steps, and lbfgs would begin after 20"):
        phases.check_epochs(asked, 4, 5)
