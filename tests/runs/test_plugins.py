"""From words on the command line to objects."""

import sys

import keras
import numpy as np
import pytest

from trainloop import SAM, Adam, DataSplit, TestGD
from trainloop.runs.plugins import (
    constructor_arguments,
    find_data,
    find_loss,
    find_model,
    find_optimizer,
    make_optimizer,
    parse_options,
)

MINE = """
from trainloop import GlobalVectorOptimizer

class Mine(GlobalVectorOptimizer):
    def __init__(self, learning_rate=0.1, power=2, name="mine", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.power = power
    def init_state(self, x):
        return {}
    def update(self, x, g, state):
        return x - self.learning_rate * g, {}

class Old(GlobalVectorOptimizer):
    def _resource_apply_dense(self, g, v):
        pass
    def init_state(self, x):
        return {}
    def update(self, x, g, state):
        return x, {}

class Fails(Mine):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = {}["missing"] if extra == 2 else extra

class Foreign:
    def _create_slots(self):
        pass

class Unrelated:
    pass

number = 3
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", ["testgd", "TestGD", "TESTGD"])
def test_names_of_the_register(name):
    assert find_optimizer(name) is TestGD


def test_a_class_in_a_file(mine):
    optimizer = make_optimizer(find_optimizer(f"{mine}:Mine"), {"power": 3, "global_clipnorm": 1.0})
    assert (optimizer.power, optimizer.global_clipnorm) == (3, 1.0)


def test_arguments_are_passed_on_to_a_method_that_is_the_base(mine):
    optimizer = make_optimizer(find_optimizer(f"{mine}:Fails"), {"extra": 3, "power": 4, "name": "it"})
    assert (optimizer.extra, optimizer.power, optimizer.name) == (3, 4, "it")
    with pytest.raises(ValueError, match="it takes extra, learning_rate, power, name, global_clipnorm"):
        make_optimizer(find_optimizer(f"{mine}:Fails"), {"powr": 4})


def test_a_constructor_that_fails_is_one_line_with_the_users_place(mine):
    with pytest.raises(ValueError, match=r"^Fails at .*mine\.py:24 in __init__: KeyError: 'missing'$"):
        make_optimizer(find_optimizer(f"{mine}:Fails"), {"extra": 2})


def test_a_class_in_a_module(mine, monkeypatch):
    monkeypatch.syspath_prepend(str(mine.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert find_optimizer("mine:Mine").__name__ == "Mine"
    assert find_optimizer("trainloop.algorithms.adam:Adam") is Adam


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("testdg", "did you mean 'testgd'"),
        ("nothing", "known: adam, .*, testgd, .*, lbfgs, .*, bestsofar, combine, sam"),
        ("mine.py:Min", "did you mean 'Mine'"),
        ("mine.py:number", "not a GlobalVectorOptimizer"),
        ("mine.py:Unrelated", "not a GlobalVectorOptimizer"),
        ("mine.py:Foreign", "_create_slots .* init_state"),
        ("no_such_module:Mine", "importing no_such_module failed"),
        ("broken.py:Mine", r"broken.py:3: NameError: name 'undefined'"),
        ("syntax.py:Mine", r"syntax.py:2: SyntaxError"),
    ],
)
def test_what_cannot_be_found_is_one_line(mine, name, words, monkeypatch):
    monkeypatch.chdir(mine.parent)
    (mine.parent / "broken.py").write_text("x = 1\n\nundefined\n")
    (mine.parent / "syntax.py").write_text("x = 1\nclass :\n")
    with pytest.raises(ValueError, match=words) as caught:
        find_optimizer(name)
    assert "\n" not in str(caught.value)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py"):
        find_optimizer("nowhere.py:Mine")


def test_a_class_for_an_older_api_is_told_what_to_do(mine):
    with pytest.raises(ValueError, match=r"Old: Old defines _resource_apply_dense .* update"):
        make_optimizer(find_optimizer(f"{mine}:Old"), {})


def test_models_by_name():
    assert find_model("LeNet5")().count_params() == 44_426
    with pytest.raises(ValueError, match="did you mean 'lenet5'"):
        find_model("lenet")


PARTS = """
import keras
import numpy as np
from trainloop import DataSplit

X = np.arange(12.0).reshape(4, 3)

def pairs():
    return (X, X[:, 0]), (X[:2], X[:2, 0])

def split():
    return DataSplit(*(a.astype("float32") for a in (X, X, X, X)), None)

def labels():
    return (X, np.arange(4)), (X, np.arange(4))

def sequences():
    return (np.eye(3, dtype=int), np.eye(3, dtype=int)), (np.eye(3, dtype=int), np.eye(3, dtype=int))

def three():
    return X, X, X

def weighted():
    return (X, X, X), (X, X, X)

def nan():
    return (X * np.nan, X), (X, X)

def fails():
    return X[5]

def build(input_shape, outputs):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs)])

def nothing(input_shape, outputs):
    build(input_shape, outputs)

def broken(input_shape, outputs):
    return keras.layers.Dense(outputs)(input_shape.upper())

def compare(targets, predictions):
    return targets - predictions

def batchwise(model, batch, training):
    return 0.0

class Own(keras.losses.Loss):
    def call(self, targets, predictions):
        return targets - predictions

own = Own()
model = build((3,), 2)
number = 3
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PARTS)


def test_data_of_a_users_function(parts):
    data = find_data("parts.py:pairs")
    assert isinstance(data, DataSplit)
    assert (data.kind, data.outputs, data.name) == ("features", 1, "parts.py:pairs")
    np.testing.assert_array_equal(data.y_train, [[0], [3], [6], [9]])
    assert find_data("parts.py:split").outputs == 3
    assert find_data("parts.py:labels").classes == 4
    assert (find_data("parts.py:sequences").kind, find_data("parts.py:sequences").classes) == ("tokens", 2)
    assert find_data("wine").classes == 3


def test_models_of_a_user(parts):
    assert find_model("parts.py:build")((5,), 2).count_params() == 12
    model = find_model("parts.py:model")((3,), 2)
    assert find_model("parts.py:model")((3,), 2) is model


def test_losses_by_name_and_of_a_user(parts):
    assert float(find_loss("mse")["loss"](np.zeros(3), np.ones(3))) == 1
    assert find_loss("BinaryCrossentropy")["loss"].from_logits
    assert find_loss("parts.py:compare")["loss"](3, 2) == 1
    assert list(find_loss("parts.py:batchwise")) == ["loss_fn"]
    for name in ("Own", "own"):
        assert isinstance(find_loss(f"parts.py:{name}")["loss"], keras.losses.Loss)


@pytest.mark.parametrize(
    ("find", "text", "words"),
    [
        (find_data, "parts.py:pair", r"did you mean 'pairs'\?\); its functions: pairs, split"),
        (find_data, "parts.py:three", r"must return a DataSplit or .* received 3 parts; return one of them"),
        (find_data, "parts.py:weighted", r"two triples; .*TrainLoop\.run\(\(x, y, weights\)\)"),
        (find_data, "parts.py:number", "must return a DataSplit or .* received int"),
        (find_data, "parts.py:nan", "parts.py:nan: x_train: expected finite"),
        (find_data, "parts.py:fails", r"parts.py:fails at .*parts\.py:30 in fails: IndexError"),
        (find_data, "parts.py:build", "parts.py:build: TypeError: .*2 required positional arguments"),
        (find_model, "lenet", "did you mean 'lenet5'.*file.py:function"),
        (find_model, "parts.py:buid", "did you mean 'build'"),
        (find_model, "parts.py:number", r"must be a function \(input_shape, outputs\) -> keras.Model, received 3"),
        (find_model, "parts.py:nothing", "must return a keras.Model, received NoneType"),
        (find_model, "parts.py:broken", r"at .*parts\.py:39 in broken: AttributeError"),
        (find_loss, "huberr", "unknown loss 'huberr' .did you mean 'huber'"),
        (find_loss, "parts.py:number", r"must be a function \(targets, predictions\)"),
        (find_loss, "no_such_module:loss", "importing no_such_module failed"),
    ],
)
def test_what_is_wrong_with_a_users_parts_is_one_line(parts, find, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        find(text)((3,), 2)  # what is no model has failed by now
    assert "\n" not in str(caught.value)


def test_option_values_are_python_literals_or_strings():
    options = parse_options(["a=1", "b=.5", "c=True", "d=None", "e=dense", "f='x=y'", "g=1e-3", "h=(1, 2)", "i={[]:1}"])
    expected = {"a": 1, "b": 0.5, "c": True, "d": None, "e": "dense", "f": "x=y", "g": 1e-3, "h": (1, 2), "i": "{[]:1}"}
    assert options == expected
    assert [type(v) for v in options.values()] == [type(v) for v in expected.values()]


def test_a_method_around_another_one():
    options = parse_options(["inner=momentum", "inner.momentum=0.5", "inner.learning_rate=0.1", "rho=0.2"])
    optimizer = make_optimizer(find_optimizer("sam"), options)
    assert (optimizer.rho, optimizer.inner.momentum) == (0.2, 0.5)
    assert float(optimizer.inner.learning_rate) == pytest.approx(0.1)
    nested = parse_options(["inner=sam", "inner.inner=adam", "inner.inner.beta_1=0.8"])
    assert make_optimizer(find_optimizer("bestsofar"), nested).inner.inner.beta_1 == 0.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name it: -o inner=momentum"),
        ({"inner": 3}, "name it: -o inner=momentum"),
        ({"inner": "moment"}, "did you mean 'momentum'"),
        ({"inner": "momentum", "inner.momentom": 0.5}, "did you mean 'momentum'"),
        ({"inner": "lbfgs"}, "SAM wraps a GlobalVectorOptimizer"),
    ],
)
def test_what_is_wrong_with_an_inner_method_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(find_optimizer("sam"), options)


@pytest.mark.parametrize("text", ["rad", "=3", "a b=3", "", "inner.=3"])
def test_options_look_like_key_value(text):
    with pytest.raises(ValueError, match="key=value"):
        parse_options([text])


def test_an_option_given_twice_is_refused():
    with pytest.raises(ValueError, match="rad is given twice, as 1 and as 2"):
        parse_options(["rad=1", "rad=2"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"radd": 3}, r"no option 'radd' \(did you mean 'rad'\?\); it takes rad, storage"),
        ({"learning_rate": 3}, "no option 'learning_rate'"),
        ({"rad": "abc"}, "TestGD: rad must be .* received 'abc'"),
        ({"rad": -1}, "TestGD: rad must be"),
        ({"storage": "spare"}, "TestGD: storage must be"),
    ],
)
def test_options_are_checked_against_the_constructor(options, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(TestGD, options)


def test_arguments_of_the_base_are_known_too():
    known = constructor_arguments(Adam)
    own = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.0}
    assert known == {**own, "name": "adam", "global_clipnorm": None}
    assert list(constructor_arguments(SAM)) == ["inner", "rho", "name", "global_clipnorm"]
