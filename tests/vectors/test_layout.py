"""Tests of trainloop.vectors.layout: the way into the vector and back, exactly, against np.concatenate."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop.vectors import xla
from trainloop.vectors.layout import FlatLayout, VariableVector

WAYS = {
    "eager": lambda function: function,
    "function": tf.function,
    "jit": lambda function: tf.function(function, jit_compile=True),
}

SHAPES = {
    "scalar": [()],
    "scalars": [(), (), ()],
    "vector": [(4,)],
    "matrices": [(2, 3), (3, 1), (1, 1)],
    "rank 4": [(2, 3, 4, 5), (5,)],
    "only empty": [(0, 3)],
    "nothing in it": [(0, 3), (0,)],
    "mixed": [(3,), (), (0, 3), (2, 1, 3, 2), (2, 0), (1,), ()],
    "no names": [],
}


def layout_of(shapes, dtype="float64") -> FlatLayout:
    return FlatLayout([f"w{i}" for i in range(len(shapes))], shapes, dtype)


def arrays_of(shapes, dtype="float64", seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def flat(arrays, dtype="float64") -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *[np.ravel(array).astype(dtype) for array in arrays]])


def numpy_of(tensors) -> list[np.ndarray]:
    """Copies of tensors and of variables of both kinds."""
    return [tensor.numpy().copy() for tensor in tensors]


def assert_same(tensors, arrays) -> None:
    """Equal to the bit, with equal shapes and dtypes."""
    for found, array in zip(numpy_of(tensors), arrays, strict=True):
        np.testing.assert_array_equal(found, array, strict=True)


# --- pack and unpack ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_pack_lays_tensors_end_to_end_and_unpack_undoes_it(shapes):
    layout, arrays = layout_of(shapes), arrays_of(shapes)
    x = layout.pack([tf.constant(array) for array in arrays])
    np.testing.assert_array_equal(x, flat(arrays), strict=True)
    assert layout.size == x.shape[0]
    assert_same(layout.unpack(x), arrays)


@pytest.mark.parametrize("way", ["function", "jit"])
@pytest.mark.parametrize("shapes", ["mixed", "only empty", "no names"])
def test_pack_and_unpack_in_compiled_code(way, shapes):
    layout, arrays = layout_of(SHAPES[shapes]), arrays_of(SHAPES[shapes])
    x = WAYS[way](layout.pack)([tf.constant(array) for array in arrays])
    np.testing.assert_array_equal(x, flat(arrays), strict=True)
    assert_same(WAYS[way](layout.unpack)(x), arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_of_every_dtype_are_cast_to_the_layouts(dtype):
    shapes = [(3,), (2, 2)]
    arrays = [*arrays_of([(3,)], "float64"), *arrays_of([(2, 2)], "float32")]
    x = layout_of(shapes, dtype).pack([tf.constant(array) for array in arrays])
    np.testing.assert_array_equal(x, flat([array.astype(dtype) for array in arrays], dtype), strict=True)


def test_unpack_keeps_the_dtype_of_the_vector():
    x = np.arange(5, dtype=np.float32)
    assert_same(layout_of([(2,), (3, 1)]).unpack(tf.constant(x)), [x[:2], x[2:, None]])


def test_none_stands_for_zeros():
    arrays = arrays_of([(2, 2), (), (3,)])
    x = layout_of([(2, 2), (), (3,)]).pack([tf.constant(arrays[0]), None, tf.constant(arrays[2])])
    np.testing.assert_array_equal(x, flat([arrays[0], 0.0, arrays[2]]))


def test_nothing_but_none_is_refused_by_the_names():
    layout = FlatLayout(["kernel", "bias"], [(2, 2), (2,)])
    with pytest.raises(ValueError, match=r"None: the loss does not depend on any of kernel, bias"):
        layout.pack([None, None])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pack_refuses_a_wrong_number_of_tensors(count):
    with pytest.raises(ValueError, match=f"packs 2 tensors, received {count}"):
        layout_of([(2,), (2,)]).pack([tf.zeros([2])] * count)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 2, 1), (4,)])
def test_pack_refuses_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"w1 has shape \(2, 2\) in the layout, received"):
        layout_of([(2,), (2, 2)]).pack([tf.zeros([2]), tf.zeros(shape)])


@pytest.mark.parametrize("shape", [(), (4,), (6,), (5, 1), (0,)])
def test_unpack_refuses_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"unpacks a vector of shape \[5\], received shape"):
        layout_of([(2,), (3,)]).unpack(tf.zeros(shape))


def test_pack_takes_tensors_whose_shape_is_not_known_while_tracing():
    array = arrays_of([(2, 3)])[0]
    layout = layout_of([(2, 3)])
    compiled = tf.function(lambda w: layout.pack([w]), input_signature=[tf.TensorSpec([None, 3], tf.float64)])
    np.testing.assert_array_equal(compiled(array), array.ravel())


# --- IndexedSlices --------------------------------------------------------------------------------------


def dense_gradient(rows, values, shape) -> np.ndarray:
    gradient = np.zeros(shape)
    np.add.at(gradient, rows, values)
    return gradient


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [[], [3], [0, 0, 0], [4, 1, 4, 0, 1, 4]])
def test_indexed_slices_with_repeated_rows_are_summed(way, rows):
    values = np.random.default_rng(1).normal(size=(len(rows), 3))
    bias = np.ones(2)

    def pack(values, rows):
        return layout_of([(5, 3), (2,)]).pack([tf.IndexedSlices(values, rows), tf.constant(bias)])

    x = WAYS[way](pack)(tf.constant(values), tf.constant(rows, tf.int32))
    np.testing.assert_allclose(x, flat([dense_gradient(rows, values, (5, 3)), bias]), rtol=1e-15)


def test_gradient_of_an_embedding():
    table, rows = tf.Variable(arrays_of([(5, 3)])[0]), [4, 1, 4]
    factors = np.random.default_rng(2).normal(size=(3, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(factors * tf.gather(table, rows))
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.IndexedSlices)
    x = VariableVector([table]).layout.pack([gradient])
    np.testing.assert_allclose(x, dense_gradient(rows, factors, (5, 3)).ravel(), rtol=1e-15)


def test_indexed_slices_of_a_wrong_width_are_refused():
    slices = tf.IndexedSlices(tf.ones([2, 4]), tf.constant([0, 1]))
    with pytest.raises(ValueError, match=r"w0 has shape \(5, 3\)"):
        layout_of([(5, 3)]).pack([slices])


# --- FlatLayout by itself -------------------------------------------------------------------------------


def test_layout_names_plain_types_however_it_was_given():
    layout = FlatLayout(["a", "b"], [tf.TensorShape([2, 3]), [4]], tf.float32)
    assert (layout.names, layout.shapes, layout.dtype) == (("a", "b"), ((2, 3), (4,)), "float32")
    assert layout == FlatLayout(("a", "b"), ((2, 3), (4,)), "float32")
    assert (layout.sizes, layout.size) == ((6, 4), 10)


@pytest.mark.parametrize(
    ("names", "shapes", "dtype", "match"),
    [
        (["a"], [(1,), (2,)], "float32", "one shape per name; received 1 names, 2 shapes"),
        (["a", "b", "c"], [(1,)], "float32", "one shape per name; received 3 names, 1 shapes"),
        (["a", "b", "a"], [(1,)] * 3, "float32", "distinct, received 'a' more than once"),
        (["a"], [(None, 2)], "float32", r"fully known shapes, received \(None, 2\)"),
        (["a"], [(1,)], "int32", "real floating type, received int32"),
        (["a"], [(1,)], "bool", "real floating type, received bool"),
        (["a"], [(1,)], "complex64", "real floating type, received complex64"),
    ],
)
def test_layout_refuses(names, shapes, dtype, match):
    with pytest.raises(ValueError, match=match):
        FlatLayout(names, shapes, dtype)


def test_span_is_the_part_of_the_vector():
    shapes = SHAPES["mixed"]
    layout, arrays = layout_of(shapes), arrays_of(shapes)
    x = layout.pack([tf.constant(array) for array in arrays])
    assert_same([x[layout.span(name)] for name in layout.names], [array.ravel() for array in arrays])


def test_span_of_a_layer_has_all_that_lies_below_its_name():
    layout = FlatLayout(["a/kernel", "a/inner/bias", "ab/kernel", "b"], [(2, 2), (3,), (5,), ()])
    spans = [layout.span(name) for name in ("a", "a/inner", "ab", "b")]
    assert spans == [slice(0, 7), slice(4, 7), slice(7, 12), slice(12, 13)]


def test_span_refuses_a_layer_in_two_pieces():
    layout = FlatLayout(["a/kernel", "b/kernel", "a/bias"], [(2,), (3,), (1,)])
    with pytest.raises(ValueError, match=r"below 'a' is not in one piece of the vector; use mask\(lambda name: name"):
        layout.span("a")


def test_span_refuses_an_unknown_name_and_lists_the_known():
    with pytest.raises(ValueError, match="no tensor or layer is called 'kernle'; the layout has: kernel, bias"):
        FlatLayout(["kernel", "bias"], [(1,), (1,)]).span("kernle")


def test_mask_selects_the_entries_of_tensors_by_name():
    layout = FlatLayout(["a/kernel", "a/bias", "none", "b/bias"], [(2, 2), (2,), (0, 3), ()])
    mask = layout.mask(lambda name: name.endswith("bias"))
    assert mask.dtype == tf.bool
    np.testing.assert_array_equal(mask, [False] * 4 + [True] * 2 + [True])


@pytest.mark.parametrize(("answer", "expected"), [(True, [True] * 3), (0, [False] * 3), ("yes", [True] * 3)])
def test_mask_takes_any_truth_value(answer, expected):
    np.testing.assert_array_equal(layout_of([(3,)]).mask(lambda name: answer), expected)


def test_mask_of_nothing_is_an_empty_bool_vector():
    mask = layout_of([]).mask(lambda name: True)
    assert mask.shape == (0,)
    assert mask.dtype == tf.bool


# --- fingerprint ----------------------------------------------------------------------------------------


def test_fingerprint_tells_every_difference():
    layouts = [
        FlatLayout(("a", "b"), ((2, 3), (3,)), "float32"),
        FlatLayout(("a", "c"), ((2, 3), (3,)), "float32"),
        FlatLayout(("b", "a"), ((2, 3), (3,)), "float32"),
        FlatLayout(("b", "a"), ((3,), (2, 3)), "float32"),
        FlatLayout(("a", "b"), ((3, 2), (3,)), "float32"),
        FlatLayout(("a", "b"), ((6,), (3,)), "float32"),
        FlatLayout(("a", "b"), ((2, 3), (3,)), "float64"),
        FlatLayout(("a",), ((2, 3),), "float32"),
        FlatLayout(("a", "b"), ((2, 3), ()), "float32"),
        FlatLayout((), (), "float32"),
    ]
    assert len({layout.fingerprint() for layout in layouts}) == len(layouts)


@pytest.mark.parametrize(
    "given",
    [
        {"names": ["a", "b"], "shapes": [[2, 3], []]},
        {"shapes": (tf.TensorShape([2, 3]), tf.TensorShape([]))},
        {"shapes": [(np.int64(2), np.int32(3)), ()]},
        {"dtype": tf.float32},
        {"dtype": np.float32},
        {"names": np.array(["a", "b"])},
    ],
    ids=["lists", "TensorShape", "NumPy shapes", "tf.float32", "np.float32", "NumPy names"],
)
def test_fingerprints_of_equal_layouts_are_equal(given):
    fields = {"names": ("a", "b"), "shapes": ((2, 3), ()), "dtype": "float32"}
    layout, plain = FlatLayout(**{**fields, **given}), FlatLayout(**fields)
    assert layout == plain
    assert layout.fingerprint() == plain.fingerprint()


def test_fingerprint_is_the_same_in_every_process():
    """Checkpoints carry it, so it must never change; Python's hash() of strings would, from run to run."""
    text = "(('kernel', 'bias'), ((2, 3), (3,)), 'float32')"
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert FlatLayout(("kernel", "bias"), ((2, 3), (3,)), "float32").fingerprint() == expected


# --- FlatLayout.of --------------------------------------------------------------------------------------


def test_layout_of_tensorflow_variables():
    layout = FlatLayout.of([tf.Variable(tf.zeros([2, 3]), name="kernel"), tf.Variable(0.0, name="gain")])
    assert layout == FlatLayout(("kernel", "gain"), ((2, 3), ()), "float32")


def test_layout_of_a_keras_model_has_the_paths_as_names():
    model = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(2, name="first"), keras.layers.Dense(1, name="last")]
    )
    layout = FlatLayout.of(model.trainable_variables)
    assert [name.split("/")[-2:] for name in layout.names] == [
        ["first", "kernel"],
        ["first", "bias"],
        ["last", "kernel"],
        ["last", "bias"],
    ]
    assert layout.shapes == ((3, 2), (2,), (2, 1), (1,))
    assert layout.size == 3 * 2 + 2 + 2 + 1


@pytest.mark.parametrize(
    "make",
    [lambda name: tf.Variable(0.0, name=name), lambda name: keras.Variable(0.0, name=name)],
    ids=["tensorflow", "keras"],
)
@pytest.mark.parametrize("names", [["w", "w", "w"], ["w", "w", "w_1"], ["w_1", "w", "w"], ["w", "w_1", "w", "w"]])
def test_variables_that_share_a_name_are_told_apart(make, names):
    found = FlatLayout.of(map(make, names)).names
    assert len(set(found)) == len(names)
    assert all(new.startswith(name) for new, name in zip(found, names, strict=True))
    assert found[0] == names[0]


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (["float32"], "float32"),
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["float32", "float64"], "float64"),
        (["bfloat16", "float32"], "float32"),
        (["bfloat16", "float16"], "float32"),  # neither holds the other
        (["float16", "bfloat16", "float64"], "float64"),
    ],
)
def test_the_common_dtype_holds_every_value(dtypes, common):
    assert FlatLayout.of(tf.Variable(tf.zeros([2], dtype)) for dtype in dtypes).dtype == common


def test_layout_of_nothing_has_the_dtype_of_keras():
    assert FlatLayout.of([]) == FlatLayout((), (), keras.config.floatx())


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_variables_that_are_not_floating_are_refused(dtype):
    variables = [tf.Variable(1.0), tf.Variable(tf.zeros([2], dtype), name="odd")]
    with pytest.raises(ValueError, match=f"only real floating variables can be packed; odd:0 is .*{dtype}"):
        VariableVector(variables)


# --- VariableVector -------------------------------------------------------------------------------------


def variables_of(dtypes, kind="tensorflow") -> list:
    """Variables [3, i + 1] of random numbers."""
    make = keras.Variable if kind == "keras" else tf.Variable
    rng = np.random.default_rng(3)
    return [make(rng.normal(size=(3, i + 1)), dtype=dtype) for i, dtype in enumerate(dtypes)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "dtypes"),
    [
        ("keras", ["float32", "float64"]),
        ("keras", ["bfloat16", "float32"]),
        ("tensorflow", ["float64"]),
        ("tensorflow", ["float32", "float64"]),
        ("tensorflow", ["float16", "bfloat16", "float64"]),
    ],
)
def test_read_and_assign_are_an_exact_round_trip(way, kind, dtypes):
    vector = VariableVector(variables_of(dtypes, kind))
    before = numpy_of(vector.variables)
    x = WAYS[way](vector.read)()
    np.testing.assert_array_equal(x, flat(before, vector.layout.dtype), strict=True)
    for variable in vector.variables:
        variable.assign(tf.zeros(variable.shape, variable.dtype))
    WAYS[way](lambda x: vector.assign(x))(x)
    assert_same(vector.variables, before)


def test_assign_writes_each_piece_cast_to_its_variable():
    vector = VariableVector(variables_of(["float32", "float64"]))
    x = np.linspace(0, 1, 9)
    vector.assign(tf.constant(x))
    assert_same(vector.variables, [x[:3].reshape(3, 1).astype(np.float32), x[3:].reshape(3, 2)])


def test_a_vector_of_the_wrong_length_writes_nothing():
    vector = VariableVector(variables_of(["float64", "float64"]))
    before = numpy_of(vector.variables)
    with pytest.raises(ValueError, match="received shape"):
        vector.assign(tf.zeros([8], tf.float64))
    assert_same(vector.variables, before)


def test_a_vector_of_no_variables():
    vector = VariableVector([])
    assert vector.read().shape == (0,)
    vector.assign(vector.read())
    assert vector.variables == ()


def test_frozen_layers_are_untouched():
    layers = [keras.layers.Dense(2, name="frozen", trainable=False), keras.layers.Dense(1, name="free")]
    model = keras.Sequential([keras.Input([3]), *layers])
    frozen, free = (numpy_of(layer.weights) for layer in layers)
    vector = VariableVector(model.trainable_variables)
    assert vector.layout.size == 3
    vector.assign(vector.read() + 1.0)
    assert_same(model.layers[0].weights, frozen)
    assert_same(model.layers[1].weights, [array + 1 for array in free])


@pytest.mark.parametrize(
    "pair",
    [
        lambda: [tf.Variable(1.0)] * 2,
        lambda: [keras.Variable(1.0)] * 2,
        lambda: (lambda v: [v, v.value])(keras.Variable(1.0)),
    ],
    ids=["tensorflow", "keras", "keras and its tensorflow"],
)
def test_the_same_variable_twice_is_refused(pair):
    with pytest.raises(ValueError, match="a variable occurs twice"):
        VariableVector([tf.Variable(2.0), *pair()])


def test_gradient_steps_through_the_vector_match_numpy():
    """The docstring's loop, compiled: least squares by gradient descent."""
    rng = np.random.default_rng(4)
    A, b, w, c = rng.normal(size=(20, 3)), rng.normal(size=20), rng.normal(size=(3, 1)), 0.5
    kernel, offset = tf.Variable(w), keras.Variable(c, dtype="float64")
    vector = VariableVector([kernel, offset])

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            residual = tf.linalg.matmul(A, kernel)[:, 0] + offset.value - b
            loss = tf.reduce_sum(residual**2) / 2
        gradients = tape.gradient(loss, [kernel, offset.value])
        vector.assign(vector.read() - 0.01 * vector.layout.pack(gradients))

    for _ in range(10):
        step()
        residual = A @ w[:, 0] + c - b
        w, c = w - 0.01 * (A.T @ residual)[:, None], c - 0.01 * residual.sum()
    np.testing.assert_allclose(vector.read(), [*w[:, 0], c], rtol=1e-12)


# --- arrange --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensorflow", "keras"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [2, 1, 0]])
def test_arrange_brings_items_into_the_order_of_the_vector(kind, order):
    variables = variables_of(["float64"] * 3, kind)
    vector = VariableVector(variables)
    assert vector.arrange([f"item {i}" for i in order], [variables[i] for i in order]) == ["item 0", "item 1", "item 2"]


def test_arrange_knows_a_keras_variable_by_its_tensorflow_variable():
    variables = variables_of(["float64"] * 2, "keras")
    assert VariableVector(variables).arrange([2, 1], [variables[1].value, variables[0]]) == [1, 2]


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ([0], "holds 2 variables.*missing: b; unknown: 0"),
        ([], "holds 2 variables.*missing: a, b; unknown: 0"),
        ([0, 1, 2], "holds 2 variables.*missing: none; unknown: 1"),
        ([0, 2], "holds 2 variables.*missing: b; unknown: 1"),
    ],
)
def test_arrange_refuses_missing_and_unknown_variables(chosen, match):
    variables = [tf.Variable(0.0, name=name) for name in "abc"]
    with pytest.raises(ValueError, match=match):
        VariableVector(variables[:2]).arrange(chosen, [variables[i] for i in chosen])


def test_arrange_refuses_a_variable_given_twice():
    a, b = tf.Variable(0.0, name="a"), tf.Variable(0.0, name="b")
    with pytest.raises(ValueError, match="b"):
        VariableVector([a, b]).arrange([1, 2, 3], [a, b, b])


@pytest.mark.parametrize("count", [1, 3])
def test_arrange_refuses_items_that_are_not_as_many_as_variables(count):
    variables = variables_of(["float64"] * 2)
    with pytest.raises(ValueError, match=r"\b2\b|longer|shorter"):
        VariableVector(variables).arrange(range(count), variables)


# --- The forms that depend on length and compiler --------------------------------------------------------


def test_under_xla_pieces_are_laid_out_as_ever():
    layout = FlatLayout(("a", "b", "c"), ((2, 3), (), (4,)), "float64")
    tensors = [tf.constant(np.random.default_rng(0).normal(size=shape)) for shape in layout.shapes]

    def pack(*tensors):
        with xla.tracing():
            return layout.pack(tensors)

    expected = np.concatenate([np.ravel(t) for t in tensors])
    np.testing.assert_array_equal(tf.function(pack, jit_compile=True)(*tensors), expected)
    ops = [op.type for op in tf.function(pack).get_concrete_function(*tensors).graph.get_operations()]
    assert "ConcatV2" not in ops


def test_long_pieces_are_cut_where_they_belong():
    shapes = ((100, 331), (7,), (64, 512))
    layout = FlatLayout(("a", "b", "c"), shapes, "float32")
    x = np.arange(layout.size, dtype="float32")
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    for piece, expected, shape in zip(layout.unpack(x), np.split(x, ends), shapes, strict=True):
        np.testing.assert_array_equal(piece, expected.reshape(shape))


def test_derivatives_through_long_pieces_are_right_and_pad_nothing():
    """f = sum of a_i x_i^3 / 6: g_i = a_i x_i^2 / 2 and (H v)_i = a_i x_i v_i."""
    layout = FlatLayout(("a", "b"), ((200, 100), (20_000,)), "float64")
    rng = np.random.default_rng(0)
    x, v, a = (tf.constant(rng.normal(size=layout.size)) for _ in range(3))

    @tf.function
    def derive(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                pieces = zip(layout.unpack(x), layout.unpack(a), strict=True)
                f = sum(tf.reduce_sum(c * piece**3) for piece, c in pieces) / 6
            g = tape.gradient(f, x)
        return g, outer.gradient(g, x, v)

    g, product = derive(x)
    np.testing.assert_allclose(g, a * x**2 / 2, rtol=1e-12)
    np.testing.assert_allclose(product, a * x * v, rtol=1e-12)
    operations = {op.type for op in derive.get_concrete_function(x).graph.get_operations()}
    assert "StridedSliceGrad" not in operations
