"""Profiles against counting by hand, and methods over problems against a known descent."""

import json

import numpy as np
import pytest
import tensorflow as tf

from trainloop.comparison import collection, problems_page, profiles
from trainloop.comparison.entrant import parse
from trainloop.testing import Problem, problems

COSTS = np.array([[10, 20, np.inf], [30, 15, 15], [np.inf, np.inf, np.inf], [5, np.inf, 50]])


def test_ratios_are_to_the_cheapest_method():
    expected = [[1, 2, np.inf], [2, 1, 1], [np.inf] * 3, [1, np.inf, 10]]
    np.testing.assert_array_equal(profiles.ratios(COSTS), expected)


@pytest.mark.parametrize("method", range(3))
def test_shares_are_counted(method):
    values = profiles.ratios(COSTS)[:, method]
    x, share = profiles.shares(values)
    for tau in (1, 1.5, 2, 9, 10, 1e9):
        below = share[x <= tau]
        assert (below[-1] if below.size else 0) == np.sum(values <= tau) / 4


@pytest.mark.parametrize(("tolerance", "cost"), [(0.5, 4), (0.1, 9), (1e-3, 20), (1e-9, np.inf)])
def test_solved_when_f_has_fallen_by_almost_all_of_the_way(tolerance, cost):
    # The way from 11 to the minimum 1 is 10 long.
    assert profiles.cost_to_solve([1, 4, 9, 20], [11.0, 6.0, 2.0, 1.001], 1.0, tolerance) == cost


def test_the_figure_has_the_profiles():
    figure = profiles.draw(COSTS, ["a", "b", "c"], 1e-3)
    above, below = figure.axes
    assert above.lines[0].get_ydata()[-1] == 0.75
    assert below.lines[1].get_ydata()[-1] == 0.5
    np.testing.assert_array_equal(below.lines[0].get_xdata()[1:-1], [5, 10, 30])
    assert {axes.get_ylabel() for axes in figure.axes} == {"share of the problems solved"}


# f = x' x / 2 from (1, 1): gradient descent with rate 1/2 quarters f in every step, at one evaluation each.
SQUARE = Problem(
    "square", lambda x: tf.reduce_sum(x * x) / 2, np.ones(2), 0.0, smooth=True, convex=True, minimiser=np.zeros(2)
)


def test_every_improvement_is_recorded_with_its_price():
    found = collection.solve(parse("simplegd:learning_rate=0.5"), SQUARE, 1e-3, 100)
    np.testing.assert_array_equal(found["evaluations"], [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(found["best"], 0.25 ** np.arange(6))
    assert "f_target" in found["message"]


def test_the_budget_ends_a_run():
    found = collection.solve(parse("simplegd:learning_rate=0.5"), SQUARE, 1e-12, 4)
    np.testing.assert_array_equal(found["evaluations"], [1, 2, 3, 4])


def test_a_method_that_goes_up_has_its_start_only():
    found = collection.solve(parse("simplegd:learning_rate=3.0"), SQUARE, 1e-3, 10)
    assert (found["evaluations"], found["best"]) == ([1], [1.0])


def test_what_a_method_cannot_take_is_a_message():
    found = collection.solve(parse("levenbergmarquardt"), SQUARE, 1e-3, 10)
    assert found["best"] == []
    assert found["message"].startswith("ValueError: ")


def test_a_mistake_in_a_users_method_leaves_the_others_alone_and_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    update = "    def update(self, x, g, state):\n        return {}['missing']\n"
    (tmp_path / "mistaken.py").write_text(f"import trainloop as tl\nclass Mine(tl.SimpleGD):\n{update}")
    mine, record = parse("mistaken.py:Mine"), collection.Record(tmp_path / "a.json", 1e-3, 100)
    for name in ("shor", "beale"):
        record.add(mine, name, collection.solve(mine, problems[name], 1e-3, 100))
    said = problems_page.endings(record, mine.label, ["shor", "beale"], [np.inf, np.inf])
    assert said.startswith("2 refused (KeyError at ")
    assert said.endswith("mistaken.py:4 in update: 'missing')")


def test_kinds_are_parts_of_the_collection():
    assert collection.of_kind("all") == problems
    assert {*collection.of_kind("smooth"), *collection.of_kind("nonsmooth")} == {*problems}
    assert all(problem.convex for problem in collection.of_kind("convex").values())


def test_a_record_goes_on_where_it_was_and_keeps_to_its_tolerance(tmp_path):
    found = {"evaluations": [1, 5], "best": [2.0, 0.0], "status": "budget", "message": "done"}
    collection.Record(tmp_path / "a.json", 1e-3, 100).add(parse("adam"), "shor", found)
    again = collection.Record(tmp_path / "a.json", 1e-3, 100)
    assert again.has("adam", "shor")
    assert again.solved["adam"]["shor"] == found
    with pytest.raises(ValueError, match=r"'budget': 100.*'budget': 7"):
        collection.Record(tmp_path / "a.json", 1e-3, 7)


def test_results_of_a_file_that_was_edited_are_outdated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edited.py").write_text("import trainloop as tl\nclass Mine(tl.SimpleGD):\n    pass\n")
    mine = parse("edited.py:Mine")
    record = collection.Record(tmp_path / "a.json", 1e-3, 100)
    record.add(mine, "shor", {"evaluations": [], "best": [], "status": "refused", "message": ""})
    assert not collection.Record(tmp_path / "a.json", 1e-3, 100).is_outdated(mine)
    with open(tmp_path / "edited.py", "a") as file:
        file.write("# another thought\n")
    again = collection.Record(tmp_path / "a.json", 1e-3, 100)
    assert again.is_outdated(mine)
    again.forget(mine)
    assert not again.has(mine.label, "shor")


def test_why_a_problem_was_not_solved_is_said(tmp_path):
    record, low = collection.Record(tmp_path / "a.json", 1e-3, 100), problems["shor"].minimum
    record.add(
        parse("adam"), "shor", {"evaluations": [1, 8], "best": [low + 10, low + 1], "status": "stalled", "message": ""}
    )
    problems_page.write(tmp_path / "a.html", record, ["adam"], ["shor"], "all", [1e-3], 100)
    assert "stalled, 1e-01 left" in (tmp_path / "a.html").read_text()
    assert problems_page.endings(record, "adam", ["shor"], [np.inf]) == "1 stalled"


@pytest.mark.thorough
def test_a_page_of_what_is_done_so_far(tmp_path):
    record = collection.Record(tmp_path / "a.json", 1e-3, 100)
    low = problems["shor"].minimum
    record.add(
        parse("adam"), "shor", {"evaluations": [1, 8], "best": [low + 10, low], "status": "budget", "message": "<done>"}
    )
    solved = problems_page.write(tmp_path / "a.html", record, ["adam", "lbfgs"], ["shor"], "all", [1e-1, 1e-3], 100)
    assert solved == {"adam": [1, 1], "lbfgs": [0, 0]}
    text = (tmp_path / "a.html").read_text()
    assert "This comparison is not finished" in text
    assert "1 of\n  2 runs are missing" in text
    done, missing = (
        '<td data-name="adam" title="&lt;done&gt;">8</td>',
        '<td data-name="lbfgs" title="not done yet">-</td>',
    )
    assert done + missing in text
    assert text.count('data-name="solved at τ = 0.001"') == 2
    assert text.count("data:image/png;base64,") == 2
    assert json.loads((tmp_path / "a.json").read_text())["budget"] == 100
