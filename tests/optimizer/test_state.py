"""Tests of trainloop.optimizer.state: nested dicts and paths, and what an update may not do to a state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.optimizer import state as states

# --- flatten and unflatten ------------------------------------------------------------------------------

NESTED = [
    ({}, {}),
    ({"velocity": 1}, {"velocity": 1}),
    ({"moments": {"first": 1, "second": 2}}, {"moments/first": 1, "moments/second": 2}),
    ({"a": {"b": {"c": {"d": 1}}}, "e": 2}, {"a/b/c/d": 1, "e": 2}),
    ({"x": 1, "a": {"x": 2, "b": {"x": 3}}}, {"x": 1, "a/x": 2, "a/b/x": 3}),
    ({"inner": {"loss": 1, "step": 2}}, {"inner/loss": 1, "inner/step": 2}),  # reserved at the top only
    ({"a-b": 1, "a b": 2, "ä": 3}, {"a-b": 1, "a b": 2, "ä": 3}),
    ({"list": [1, 2], "tuple": (3,), "none": None}, {"list": [1, 2], "tuple": (3,), "none": None}),
]


@pytest.mark.parametrize(("nested", "leaves"), NESTED)
def test_flatten_joins_keys_and_keeps_their_order(nested, leaves):
    assert list(states.flatten(nested).items()) == list(leaves.items())


@pytest.mark.parametrize(("nested", "leaves"), NESTED)
def test_unflatten_is_the_inverse(nested, leaves):
    assert states.unflatten(leaves) == nested


def test_leaves_are_the_same_objects():
    B, x = SharedMatrix.identity(2), tf.zeros([2])
    leaves = states.flatten({"inner": {"B": B}, "x": x})
    assert leaves["inner/B"] is B
    assert states.unflatten(leaves)["x"] is x


def test_an_empty_inner_dict_does_not_vanish():
    """`unflatten` could not bring it back, and `update` would miss the key that `init_state` made."""
    with pytest.raises(ValueError, match="moments"):
        states.flatten({"moments": {}, "x": 1})


@pytest.mark.parametrize("key", ["", "a/b", "/", 0, None, b"x", ("a",), *states.RESERVED])
def test_refused_keys(key):
    with pytest.raises(ValueError, match="a state key must be a non-empty string without '/'") as caught:
        states.flatten({"fine": 1, key: 2})
    assert str(caught.value).endswith(f"received {str(key)!r}")


@pytest.mark.parametrize("key", ["", "a/b", 0])
def test_refused_inner_keys_are_named_by_their_path(key):
    with pytest.raises(ValueError, match="a state key must be") as caught:
        states.flatten({"inner": {key: 1}})
    assert str(caught.value).endswith(f"received {'inner/' + str(key)!r}")


@pytest.mark.parametrize("state", [None, [1], (1, 2), 3.0, tf.zeros([2])], ids=lambda state: type(state).__name__)
def test_a_state_must_be_a_dict(state):
    with pytest.raises(ValueError, match=rf"must be a \(nested\) dict, received {type(state).__name__}"):
        states.flatten(state)


# --- as_tensors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, None),  # None: the dtype of x
        (np.float64(0.1), None),
        (3, "int32"),
        (True, "bool"),
        (np.float32(0.5), "float32"),
        (np.arange(3), "int64"),
        (np.ones((2, 2)), "float64"),
    ],
)
def test_numbers_become_tensors_and_floats_take_the_dtype_of_x(dtype, value, expected):
    tensor = states.as_tensors({"a": value}, like=tf.zeros([2], dtype))["a"]
    np.testing.assert_array_equal(tensor.numpy(), np.asarray(value, expected or dtype), strict=True)


def test_tensors_and_matrices_stay_what_they_are():
    leaves = {"a": tf.zeros([2], tf.float16), "inner/B": SharedMatrix.identity(2)}
    converted = states.as_tensors(leaves, like=tf.zeros([2], tf.float64))
    assert list(converted) == ["a", "inner/B"]
    assert converted["a"].dtype == tf.float16
    assert converted["inner/B"] is leaves["inner/B"]


# --- check_update ---------------------------------------------------------------------------------------


def old_leaves() -> dict:
    return {
        "v": tf.zeros([3], tf.float64),
        "radius": tf.constant(1.0, tf.float64),
        "count": tf.constant(0),
        "flag": tf.constant(False),
        "B": SharedMatrix.identity(3, dtype="float64"),
    }


def check(**changes):
    """check_update of a state in which some leaves have changed."""
    old = old_leaves()
    return states.check_update("Ellipsoid", old, {**old, **changes})


def refusal(**changes) -> str:
    with pytest.raises(ValueError, match=r"Ellipsoid\.update") as caught:
        check(**changes)
    return str(caught.value)


def test_an_unchanged_structure_passes():
    old = old_leaves()
    new = {
        "B": old["B"].scale(2.0),
        "v": tf.ones([3], tf.float64),
        "radius": tf.constant(0.5, tf.float64),
        "count": tf.constant(7),
        "flag": tf.constant(True),
    }
    checked = states.check_update("Ellipsoid", old, new)
    assert list(checked) == list(old)
    assert all(checked[path] is new[path] for path in new)


def test_nested_states_are_checked_by_their_paths():
    old = {"inner/a": tf.zeros([]), "b": tf.zeros([])}
    assert states.check_update("Nested", old, {"b": 1.0, "inner": {"a": 2.0}}).keys() == old.keys()
    with pytest.raises(ValueError, match=r"Nested\.update: state 'inner/a' must keep shape \(\)"):
        states.check_update("Nested", old, {"b": 1.0, "inner": {"a": tf.zeros([2])}})


@pytest.mark.parametrize("returned", [None, [1.0], tf.zeros([])], ids=lambda returned: type(returned).__name__)
def test_a_state_that_is_no_dict_is_refused(returned):
    expected = rf"HeavyBall\.update returns must be .*dict, received {type(returned).__name__}"
    with pytest.raises(ValueError, match=expected):
        states.check_update("HeavyBall", {"a": tf.zeros([])}, returned)


def test_a_missing_key_is_refused():
    old = {"a": tf.zeros([]), "b": tf.zeros([])}
    with pytest.raises(ValueError, match=r"HeavyBall\.update .*: expected \['a', 'b'\], received \['a'\]$"):
        states.check_update("HeavyBall", old, {"a": old["a"]})


def test_an_extra_key_is_refused():
    old = {"a": tf.zeros([])}
    with pytest.raises(ValueError, match=r"HeavyBall\.update .*: expected \['a'\], received \['a', 'b'\]$"):
        states.check_update("HeavyBall", old, {"a": old["a"], "b": old["a"]})


@pytest.mark.parametrize("shape", [[], [2], [3, 1], [1, 3]])
def test_a_changed_shape_is_refused(shape):
    received = f"received shape {tf.TensorShape(shape)} and dtype float64"
    assert refusal(v=tf.zeros(shape, tf.float64)).endswith(
        f"state 'v' must keep shape (3,) and dtype float64, {received}"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "complex128"])
def test_a_changed_dtype_is_refused(dtype):
    message = refusal(v=tf.zeros([3], dtype))
    assert message.endswith(f"state 'v' must keep shape (3,) and dtype float64, received shape (3,) and dtype {dtype}")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("radius", 0.1, np.float64(0.1)),
        ("radius", 2, np.float64(2)),
        ("radius", np.float64(0.1), np.float64(0.1)),
        ("radius", math.inf, np.float64(math.inf)),
        ("count", 5, np.int32(5)),
        ("flag", True, np.True_),
        ("v", np.arange(3.0), np.arange(3.0)),
        ("v", tf.Variable(np.arange(3.0)), np.arange(3.0)),
    ],
)
def test_numbers_and_arrays_are_converted(path, value, expected):
    checked = check(**{path: value})[path]
    assert isinstance(checked, tf.Tensor)
    np.testing.assert_array_equal(checked.numpy(), expected, strict=True)


@pytest.mark.parametrize(
    ("path", "value", "fragments"),
    [
        ("count", 0.5, ["state 'count'", "shape () and dtype int32", "0.5"]),
        ("count", 10**30, ["state 'count'", "dtype int32", str(10**30)]),
        ("radius", None, ["state 'radius'", "dtype float64", "None"]),
        ("radius", "0.5", ["state 'radius'", "dtype float64", "string"]),
        ("v", 0.0, ["state 'v'", "shape (3,) and dtype float64", "shape ()"]),
        ("v", SharedMatrix.identity(3), ["state 'v'", "shape (3,) and dtype float64", "SharedMatrix"]),
    ],
)
def test_what_cannot_be_converted_is_refused(path, value, fragments):
    message = refusal(**{path: value})
    assert all(fragment in message for fragment in fragments)


@pytest.mark.parametrize(
    ("replacement", "received"),
    [
        (lambda: tf.eye(3, dtype=tf.float64), "tf.Tensor"),
        (lambda: 1.0, "1.0"),
        (lambda: SharedMatrix.identity(3, dtype="float64"), "SharedMatrix(n=3"),
        (lambda: SharedMatrix.identity(3, dtype="float64").scale(2.0), "SharedMatrix(n=3"),
    ],
    ids=["tensor", "number", "an equal matrix", "a change of another matrix"],
)
def test_a_matrix_must_be_derived_from_the_one_received(replacement, received):
    message = refusal(B=replacement())
    assert "state 'B' must be derived from the SharedMatrix received" in message
    assert message.endswith("for the identity again return that matrix after .reset()")
    assert received in message


def test_a_derived_matrix_passes_as_it_is():
    old = old_leaves()
    derived = old["B"].scale(2.0).add_symmetric(np.arange(3.0), -0.1)
    assert states.check_update("Ellipsoid", old, {**old, "B": derived})["B"] is derived


def test_shapes_not_known_while_tracing_may_still_fit():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def checked(v):
        return states.check_update("Ellipsoid", {"v": tf.zeros([3], tf.float64)}, {"v": v})["v"]

    np.testing.assert_array_equal(checked(np.arange(3.0)), np.arange(3.0))


# --- scalars --------------------------------------------------------------------------------------------


def test_scalars_are_the_tensors_of_rank_0():
    leaves = {**old_leaves(), "inner/t": tf.constant(2.0), "row": tf.zeros([1]), "empty": tf.zeros([0])}
    scalars = states.scalars(leaves)
    assert list(scalars) == ["radius", "count", "flag", "inner/t"]
    assert all(scalars[path] is leaves[path] for path in scalars)
