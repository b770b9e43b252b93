"""Products of dilations against NumPy's product of the matrices I + (beta - 1) xi xi'."""

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import dense_product, draw_dilations, with_variables

from trainloop.matrices.dilation_product import GROUP, DilationProduct

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

N = 6
COUNTS = [1, GROUP, GROUP + 1, 40]


def empty(capacity, dtype="float64", n=N):
    product = DilationProduct.empty(n, capacity, tf.as_dtype(dtype))
    return with_variables(product)[0]


def append(product, xis, bs, at_once=1, check=lambda count: None):
    """Append in compiled code, so many at once, and call `check` with their number after each time."""

    @tf.function(autograph=False)
    def add(xis, bs):
        product.append(list(zip(tf.unstack(xis), tf.unstack(bs), strict=True)))

    for i in range(0, len(bs), at_once):
        add(tf.constant(xis[i : i + at_once]), tf.constant(bs[i : i + at_once]))
        check(min(i + at_once, len(bs)))


def assert_means(product, M):
    columns = np.random.default_rng(9).normal(size=(len(M), 2))
    np.testing.assert_allclose(product.product(tf.constant(columns)), M @ columns, rtol=0, atol=1e-13)
    np.testing.assert_allclose(product.transposed_product(tf.constant(columns)), M.T @ columns, rtol=0, atol=1e-13)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("at_once", [1, 3])
def test_products_are_numpys_across_the_borders_of_groups(count, at_once):
    product, (xis, bs) = empty(40), draw_dilations(count)
    append(product, xis, bs, at_once)
    assert int(product.rank) == count
    assert_means(product, dense_product(xis, bs))


def test_it_is_right_after_every_single_factor():
    product, (xis, bs) = empty(3 * GROUP), draw_dilations(2 * GROUP + 1)
    assert_means(product, np.eye(N))
    append(product, xis, bs, check=lambda count: assert_means(product, dense_product(xis[:count], bs[:count])))
    assert int(product.rank) == len(bs)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_factors_may_be_added_in_a_compiled_loop(jit_compile):
    product, (xis, bs) = empty(16), draw_dilations(11)

    def turn(i):
        product.append([(tf.constant(xis)[i], tf.constant(bs)[i])])
        return i + 1

    tf.function(
        lambda count: tf.while_loop(lambda i: i < count, turn, [tf.constant(0)]),
        jit_compile=jit_compile,
        autograph=False,
    )(tf.constant(11))
    assert_means(product, dense_product(xis, bs))


def test_a_cleared_product_is_the_identity_and_starts_again():
    product, (xis, bs) = empty(16), draw_dilations(20)
    append(product, xis[:11], bs[:11])
    product.clear()
    assert int(product.rank) == 0
    assert_means(product, np.eye(N))
    append(product, xis[11:], bs[11:])
    assert_means(product, dense_product(xis[11:], bs[11:]))


@pytest.mark.parametrize(("capacity", "room"), [(1, GROUP), (GROUP, GROUP), (GROUP + 1, 2 * GROUP)])
def test_room_is_a_multiple_of_a_group(capacity, room):
    product = empty(capacity)
    assert (product.grows, product.capacity) == (False, room)
    append(product, *draw_dilations(room - 1))
    assert (bool(product.has_room_for(1)), bool(product.has_room_for(2))) == (True, False)


@pytest.mark.parametrize(("r", "groups"), [(1, 16), (100, 21)])
def test_a_growing_product_keeps_its_factors_and_gets_the_room_it_needs(r, groups):
    """64 factors, 8 groups, to begin with; then 8 groups more, or the 13 that a hundred factors need."""
    product, (xis, bs) = empty(None), draw_dilations(65)
    append(product, xis[:64], bs[:64])
    assert not bool(product.has_room_for(1))
    product.grow(r)
    assert bool(product.has_room_for(r))
    assert int(product.room) == GROUP * groups
    assert product.directions.numpy().shape == (groups, GROUP, N)
    assert product.triangles.numpy().shape == (groups, GROUP, GROUP)
    append(product, xis[64:], bs[64:])
    assert_means(product, dense_product(xis, bs))


def test_a_large_product_grows_by_a_quarter():
    product = empty(None, n=1)
    for room in (128, 192, 256, 320, 400):  # 64 more, until a quarter is more
        product.grow(1)
        assert int(product.room) == room == GROUP * len(product.triangles.numpy())


@pytest.mark.parametrize("n", [8, 20, 50])
@pytest.mark.parametrize("seed", range(2))
def test_200_contractions_in_float32_keep_the_digits_that_a_dense_matrix_keeps(n, seed):
    """Along random directions by 1/2 to 1/3, which for n = 8 leaves 1e-5 of a vector.

    Measured: 0.4 to 2 times the error of the dense matrix, for n = 8 about 1e-6. One sum of 200 terms has 1e-1 there.
    """
    xis, bs = draw_dilations(200, "float32", n, seed)
    product = empty(200, "float32", n)
    append(product, xis, bs)
    g = np.random.default_rng(seed).normal(size=(n, 4)).astype("float32")
    exact = dense_product(xis, bs).T @ g
    error = np.linalg.norm(product.transposed_product(tf.constant(g)) - exact)
    assert error < 3 * np.linalg.norm(dense_product(xis, bs, "float32").T @ g - exact)
