"""Tests of trainloop.vectors.linalg: against math.hypot, which neither overflows nor underflows, on exact inputs."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from trainloop.vectors import linalg
from trainloop.vectors.linalg import LONG, VERY_LONG, all_finite, choose_all, clip_norm, fails, lower, norm

TOLERANCE = {"float16": 2e-3, "float32": 5e-7, "float64": 5e-16}


def clip(v, limit):
    return clip_norm(v, norm(v), limit)


NORM = {"eager": norm, "jit": tf.function(norm, jit_compile=True)}
CLIP = {"eager": clip, "jit": tf.function(clip, jit_compile=True)}


def vector(entries, dtype="float64"):
    return tf.constant(np.asarray(entries, dtype))


def hypot(v) -> float:
    """The norm of v in float64, scaled. Where v is narrower, this is exact for our purposes."""
    return math.hypot(*v.numpy().astype(float).tolist())


def spread(n, decades, seed=0):
    """n numbers of random signs, their sizes spread over 10^-decades to 10^decades."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-decades, decades, n)


# --- norm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize(
    ("dtype", "entries"),
    [
        ("float64", [3.0, -4.0]),
        ("float64", [-2.5]),
        ("float64", np.linspace(-1, 1, 1001)),
        ("float64", [1e200, -1e200, 1e-200]),
        ("float64", [3e-200, 4e-200]),
        ("float64", [1.7e308]),
        ("float64", spread(1000, 300)),
        ("float32", [1e30, 1e30, -1e30]),
        ("float32", [1e-30, -2e-30]),
        ("float32", [3e30, 4e-30, 1.0]),
        ("float32", [3.4e38]),
        ("float32", [1.5e-38, 2e-38]),
        ("float32", [6e-16, 8e-16]),  # the sum of squares is about 1e-30
        ("float32", spread(1000, 37)),
        ("float32", spread(1000, 2)),
    ],
)
def test_norm_equals_hypot(way, dtype, entries):
    v = vector(entries, dtype)
    length = NORM[way](v)
    assert length.dtype == v.dtype
    assert length.shape == ()
    np.testing.assert_allclose(float(length), hypot(v), rtol=TOLERANCE[dtype] * max(1, math.sqrt(len(v)) / 4))


@pytest.mark.parametrize("entries", [[3.0, 4.0], [300.0, 400.0], [1e-3, 0.0], [3e-4, 4e-4], [1e4, -1e4]])
def test_norm_keeps_the_digits_of_half_precision(entries):
    v = vector(entries, "float16")
    np.testing.assert_allclose(float(norm(v)), hypot(v), rtol=TOLERANCE["float16"])


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_norm_of_zeros_is_zero(way, dtype, n):
    assert float(NORM[way](tf.zeros([n], dtype))) == 0.0


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("other", [0.0, 1.0, 1e30, 1e-30])
def test_norm_of_a_vector_with_a_nonfinite_entry_is_not_finite(way, dtype, bad, other):
    length = NORM[way](vector([other, bad, other], dtype))
    assert not math.isfinite(float(length))


@pytest.mark.parametrize(("dtype", "entry"), [("float32", 3e38), ("float64", 1.7e308)])
def test_norm_that_is_not_representable_is_infinite(dtype, entry):
    assert float(norm(vector([entry, entry], dtype))) == math.inf


@pytest.mark.parametrize("n", [1, 7])
def test_norm_takes_a_vector_of_unknown_length(n):
    compiled = tf.function(norm, input_signature=[tf.TensorSpec([None], tf.float64)])
    v = vector(spread(n, 3))
    np.testing.assert_allclose(float(compiled(v)), hypot(v), rtol=1e-15)


# --- clip_norm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("limit", [1e-3, 2])
def test_a_longer_vector_keeps_its_direction_and_gets_the_length(way, dtype, limit):
    v = vector(np.random.default_rng(1).normal(size=50), dtype)
    exact = v.numpy().astype(float) * (limit / hypot(v))
    np.testing.assert_allclose(CLIP[way](v, limit).numpy(), exact, rtol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("way", ["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("limit", [None, 8.0, 1e300])
def test_a_vector_within_the_limit_is_the_same_to_the_bit(way, dtype, limit):
    v = vector(np.random.default_rng(2).normal(size=50), dtype)
    assert hypot(v) < 8
    np.testing.assert_array_equal(CLIP[way](v, limit).numpy(), v.numpy(), strict=True)


def test_a_vector_exactly_at_the_limit_is_the_same_to_the_bit():
    v = vector([3.0, -4.0, 0.0])
    np.testing.assert_array_equal(clip(v, 5.0), v.numpy())


def test_zeros_stay_zeros():
    np.testing.assert_array_equal(clip(tf.zeros([4], tf.float64), 1.0), np.zeros(4))


@pytest.mark.parametrize(
    ("dtype", "length", "limit"),
    [
        ("float32", 1e19, 1.0),
        ("float32", 1e38, 1.0),
        ("float32", 1e38, 1e-3),
        ("float32", 1e-30, 1e-35),
        ("float64", 1.0, 1e-60),
        ("float64", 1e300, 1e-60),
    ],
)
def test_clipping_works_over_the_whole_range_of_the_dtype(dtype, length, limit):
    v = vector([0.6 * length, -0.8 * length], dtype)
    np.testing.assert_allclose(clip(v, limit), [0.6 * limit, -0.8 * limit], rtol=4 * TOLERANCE[dtype])


def test_no_limit_leaves_a_nonfinite_gradient_alone():
    np.testing.assert_array_equal(clip(vector([1.0, math.nan]), None), [1.0, math.nan])


# --- comparisons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function, functools.partial(tf.function, jit_compile=True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_comparison_with_nan_fails_and_others_are_negated(compiled, dtype):
    """In a compiled function ~(a < b) is a >= b, which does not hold for NaN either."""
    pairs = [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (-math.inf, math.nan)]
    function = compiled(lambda a, b: [fails(a < b), fails(a <= b), fails(a > b), fails(a >= b)])
    for a, b in pairs:
        expected = [not a < b, not a <= b, not a > b, not a >= b]
        assert [bool(t) for t in function(tf.constant(a, dtype), tf.constant(b, dtype))] == expected


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function, functools.partial(tf.function, jit_compile=True)])
@pytest.mark.parametrize("n", [3, LONG])
def test_the_lower_of_two_points(compiled, n):
    function = compiled(lower)
    best, other = (tf.fill([n], tf.constant(value, tf.float64)) for value in (1.0, 2.0))
    for f, f_other, second in [
        (1.0, 0.5, True),
        (1.0, 1.5, False),
        (1.0, 1.0, False),
        (1.0, math.nan, False),
        (math.inf, 3.0, True),
        (1.0, -math.inf, True),
    ]:
        x, f_low = function((best, tf.constant(f, tf.float64)), (other, tf.constant(f_other, tf.float64)))
        np.testing.assert_array_equal(x, other if second else best)
        assert float(f_low) == (f_other if second else f)


# --- all_finite, choose_all, long vectors ---------------------------------------------------------------

LENGTHS = [1, 1000, LONG, VERY_LONG]


@pytest.mark.parametrize("n", [LONG, VERY_LONG])
@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 1.0), ("float32", 1e25), ("float32", 1e-25), ("float64", 1e200)]
)
def test_norm_of_a_long_vector(n, dtype, size):
    entries = size * np.random.default_rng(0).normal(size=n).astype(dtype)
    scaled = np.linalg.norm(entries.astype(np.longdouble))
    np.testing.assert_allclose(
        float(norm(vector(entries, dtype))), float(scaled), rtol=2e-6 if dtype == "float32" else 1e-14
    )


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_all_finite(n, dtype, jit_compile):
    compiled = tf.function(all_finite, jit_compile=jit_compile)
    largest = np.finfo(dtype).max
    for entry, finite in ((0.0, True), (largest, True), (-largest, True), (np.nan, False), (np.inf, False)):
        for place in {0, n // 2, n - 1}:
            entries = np.full(n, -1.5, dtype)
            entries[place] = entry
            assert bool(compiled(vector(entries, dtype))) == finite, (entry, place)


@pytest.mark.parametrize("condition", [True, False])
def test_choose_all_takes_one_side_whatever_the_lengths(condition):
    a = [tf.fill([n], 1.0) for n in (3, LONG, 1, LONG + 1)] + [tf.constant(7, tf.int64)]
    b = [tf.fill([n], 2.0) for n in (3, LONG, 1, LONG + 1)] + [tf.constant(8, tf.int64)]
    for call in (choose_all, tf.function(choose_all), tf.function(choose_all, jit_compile=True)):
        for chosen, expected in zip(call(tf.constant(condition), a, b), a if condition else b, strict=True):
            np.testing.assert_array_equal(chosen, expected)


def test_rows_are_mapped_one_by_one():
    rows = np.arange(12.0).reshape(4, 3)
    mapped = tf.function(lambda m: linalg.map_rows(lambda row: 2 * row[:2], m), autograph=False)
    np.testing.assert_array_equal(mapped(tf.constant(rows)), 2 * rows[:, :2])
    assert mapped.get_concrete_function(tf.TensorSpec([4, 3], tf.float64)).output_shapes == tf.TensorShape([4, 2])
    np.testing.assert_array_equal(linalg.map_rows(tf.reduce_sum, tf.constant(rows)), rows.sum(1))


def test_a_function_that_raises_leaves_no_mark_on_tensorflow():
    def fails(row):
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        tf.function(lambda: linalg.map_rows(fails, tf.eye(2)), autograph=False)()
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():  # raises NotImplementedError after a mark
        pass
