"""Reading a config.json, overriding it, and noticing that a run would be another one."""

import json

import pytest

from trainloop.runs import config as run_config
from trainloop.versions import versions

# Settings that version 0.1 had too, and that say which run it is.
NOT_GIVEN = dict.fromkeys(
    (
        *("model", "loss", "epochs", "steps", "steps_per_call", "microbatch", "jit", "devices", "eager"),
        *("layer_norms", "deterministic", "max_seconds", "max_evaluations", "f_target", "on_nonfinite"),
        *("checkpoint_minutes", "checkpoint_steps", "keep", "keep_best", "tensorboard"),
    )
)
SETTINGS = NOT_GIVEN | {"dataset": "digits", "optimizer": "testgd", "options": ["rad=3", "storage=dense"], "seed": 1}
SETTINGS |= {"batch_size": "full", "run_dir": "runs/old", "overwrite": True, "resume": True}
FACTS = {"parameters": 10, "training_samples": 100, "layout_fingerprint": "l1", "data_fingerprint": "d1"}
FACTS |= {"optimizer_config": {"rad": 3.0}, "code": {"mine.py": "a1"}}


@pytest.fixture
def recorded(tmp_path):
    return run_config.read(written(tmp_path))


def written(folder, **changes):
    content = {**SETTINGS, **FACTS, "versions": versions(), **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "left out"}))
    return path


def here(recorded, **given):
    """What the options are when these are given."""
    settings = {**recorded.settings, "options": tuple(recorded.settings["options"]), "run_dir": None, **given}
    return recorded.overridden(settings, list(given))


def test_where_the_other_run_was_is_not_repeated(recorded):
    assert recorded.settings.keys() == SETTINGS.keys() - {"run_dir", "overwrite", "resume"}
    assert recorded.facts == FACTS
    settings, changed = here(recorded)
    assert (settings["options"], settings["run_dir"], changed) == (("rad=3", "storage=dense"), None, {})
    assert run_config.message("a.json", changed) == "repeats a.json"


def test_what_is_given_overrides_and_is_said(recorded):
    settings, changed = here(recorded, seed=2, dataset="digits", options=("rad=5", "name=x"), run_dir="runs/new")
    assert settings["options"] == ("rad=5", "storage=dense", "name=x")
    said = run_config.message("a", changed)
    assert said.startswith("repeats a, but with options rad=5 storage=dense name=x instead of rad=3 storage=dense, ")
    assert said.endswith(", seed 2 instead of 1")


def test_a_run_that_goes_on_has_its_settings_and_in_their_place_what_is_given(tmp_path):
    recorded = run_config.read(written(tmp_path, epochs=50))
    defaults = NOT_GIVEN | {"dataset": "mnist", "optimizer": None, "options": (), "seed": 0, "batch_size": 64}
    defaults |= {"run_dir": "a", "resume": True}
    of_the_run = {"optimizer": "testgd", "options": ("rad=3", "storage=dense"), "seed": 1, "batch_size": "full"}
    assert recorded.continued(defaults, ["dataset"]) == {**defaults, **of_the_run, "epochs": 50}
    # Arguments of the run's method are none of another one.
    other = recorded.continued({**defaults, "optimizer": "adam"}, ["dataset", "optimizer"])
    assert (other["optimizer"], other["options"]) == ("adam", ())
    # Steps before --then are those of the first phase, and no goal.
    then = run_config.read(written(tmp_path, epochs=9, steps=3, then=["lbfgs"]))
    assert then.continued({**defaults, "epochs": 20}, ["epochs"])["steps"] == 3
    # New goals take the place of the old ones.
    assert recorded.continued({**defaults, "steps": 9}, ["dataset", "steps"]) == {**defaults, **of_the_run, "steps": 9}


def test_what_a_run_of_version_0_1_knows_nothing_of_is_as_if_it_had_not_been_given(recorded):
    _, changed = here(recorded, then=(), loss_weights=(), residuals=None, dtype=None)
    assert changed == {}
    _, changed = here(recorded, dtype="float64")
    recorded.check({**FACTS, "layout_fingerprint": "l2", "data_fingerprint": "d2"}, changed)


def test_phases_override_those_of_a_run_that_knows_of_none(recorded):
    settings, changed = here(recorded, then=("lbfgs",))
    assert (settings["then"], changed) == (("lbfgs",), {"then": (["lbfgs"], [])})
    recorded.check({**FACTS, "optimizer_config": [{"rad": 3.0}, {"m": 5}]}, changed)


@pytest.mark.parametrize(("options", "expected"), [(None, ()), (("m=5",), ("m=5",))])
def test_another_method_does_not_get_the_arguments_of_this_one(recorded, options, expected):
    given = {"optimizer": "lbfgs"} | ({} if options is None else {"options": options})
    settings, changed = here(recorded, **given)
    assert settings["options"] == expected
    assert set(changed) == {"optimizer", "options"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": 3, "gpus": 1}, "has layers, gpus, unknown here; it was written by trainloop"),
        ({"seed": "left out", "parameters": "left out"}, "lacks seed, parameters; it was written by trainloop"),
        ({"layers": 3, "versions": {"trainloop": "9.0"}}, "it was written by trainloop 9.0, this is"),
        ({"seed": "left out", "versions": "left out"}, "it was written by trainloop an unknown version"),
    ],
)
def test_other_options_are_one_line(tmp_path, changes, words):
    with pytest.raises(ValueError, match="use the version it was written by") as caught:
        run_config.read(written(tmp_path, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"versions": 3}', "versions is 3"),
        (b'{"options": null}', "options is None"),
        (b'{"seed": 1,', "not JSON"),
        (b"[1, 2]", "holds a list"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_what_is_no_configuration_is_one_line(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        run_config.read(path)
    assert str(caught.value).startswith(f"{path} is not a config.json of a run")


@pytest.mark.parametrize(
    ("fact", "value", "causes"),
    [
        ("data_fingerprint", "d2", ["dataset", "seed", "batch_size"]),
        ("layout_fingerprint", "l2", ["dataset"]),
        ("optimizer_config", {"rad": 4.0}, ["optimizer", "options"]),
    ],
)
def test_another_run_under_the_same_settings_is_refused(recorded, fact, value, causes):
    recorded.check(dict(FACTS), {})
    with pytest.raises(ValueError, match="cannot be repeated") as caught:
        recorded.check(FACTS | {fact: value}, {})
    assert f"{fact} was {FACTS[fact]!r}, here it is {value!r}" in str(caught.value)
    for cause in causes:  # unless it is meant to be another one
        recorded.check(FACTS | {fact: value}, {cause: (1, 2)})
    with pytest.raises(ValueError, match="cannot be repeated"):
        recorded.check(FACTS | {fact: value}, {"epochs": (1, 2)})


def test_other_versions_are_said(recorded, tmp_path):
    assert recorded.other_versions() == ""
    old = {**versions(), "tensorflow": "2.0", "cudnn": "8"} | {"processors": 64}
    message = run_config.read(written(tmp_path, versions=old)).other_versions()
    assert "made with tensorflow 2.0 (here 2" in message
    assert "processors 64 (here " in message
    assert "cudnn 8 (here unknown)" in message
    assert "keras" not in message
    assert "may differ" in message


def test_files_that_were_edited_are_said_and_no_reason_to_refuse(recorded):
    edited = FACTS | {"code": {"mine.py": "b2"}}
    recorded.check(edited, {})
    assert recorded.other_code(FACTS) == ""
    assert "mine.py changed since" in recorded.other_code(edited)
