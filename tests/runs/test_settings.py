"""The table of settings and facts: complete, and right about what a run that goes on may have."""

import pytest

from trainloop.cli.train import train
from trainloop.runs.settings import FACTS, SETTINGS, differences


def test_each_option_has_exactly_one_row():
    options = [param.name for param in train.params if param.name != "show_list"]  # which prints, and is no run
    assert sorted(entry.name for entry in SETTINGS) == sorted(options)


def test_facts_follow_from_settings():
    names = {entry.name for entry in SETTINGS}
    for fact in FACTS:
        assert fact.follows_from
        assert set(fact.follows_from) <= names
        assert fact.name not in names
    assert not [entry.name for entry in SETTINGS if entry.follows_from]


def test_what_is_not_repeated_has_no_influence():
    assert all(entry.may_change for entry in SETTINGS if not entry.repeat)


def test_goals_and_what_moves_no_number_may_change():
    assert [entry.name for entry in SETTINGS if entry.goal] == ["epochs", "steps"]
    here = {entry.name: "here" for entry in SETTINGS if entry.may_change}
    assert differences(dict.fromkeys(here, "there"), here) == []


@pytest.mark.parametrize(
    ("name", "there", "here", "text"),
    [
        ("seed", 0, 1, "seed was 0, here it is 1"),
        ("loss", None, "mse", "loss was None, here it is 'mse'"),
        ("parameters", 10, 11, "parameters was 10, here it is 11"),
        ("code", {"a.py": "1", "b.py": "2"}, {"a.py": "1", "b.py": "3"}, "b.py was edited since it began"),
        ("code", None, {"a.py": "1"}, "code was None, here it is {'a.py': '1'}"),
        ("then", ["lbfgs:m=5,--steps=4"], ["lbfgs:m=6"], "then was ['lbfgs:m=5,--steps=4'], here it is ['lbfgs:m=6']"),
        # The last phase's steps are a goal, and an older run lacks newer settings.
        ("then", ["lbfgs:m=5,--steps=4"], ["lbfgs:m=5,--steps=9"], None),
        ("then", None, [], None),
        ("dtype", None, None, None),
    ],
)
def test_how_two_runs_differ(name, there, here, text):
    assert differences({name: there}, {name: here}) == ([] if text is None else [text])
