"""An update compiled by XLA into few passes over memory, where that is possible and worth its while.

TensorFlow runs one operation after the other, and each writes a new vector. The update of Adam reads and writes 30
vectors that way and 10 when it is compiled. Calling compiled code has a price, so short vectors are left alone.

XLA cannot compile everything that an optimizer may do (print, call Python, ask for shapes that depend on values). So
only updates of plain arithmetic are compiled, which one look at the traced operations tells.
"""

import tensorflow as tf

from trainloop.vectors import linalg

_ARITHMETIC = frozenset(
    """
    Abs Add AddN AddV2 All Any BatchMatMulV2 BroadcastTo Cast Ceil Const Cos Div DivNoNan Equal Erf Exp ExpandDims Fill
    Floor FloorDiv FloorMod Greater GreaterEqual Identity If IsFinite IsInf IsNan L2Loss Less LessEqual Log Log1p
    LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mul MulNoNan Neg NoOp NotEqual OnesLike Pack
    Placeholder Pow Prod RealDiv Reciprocal Relu Reshape Round Rsqrt Select SelectV2 Shape Sigmoid Sign Sin Slice
    Softplus Sqrt Square SquaredDifference Squeeze StatelessIf StridedSlice Sub Sum Tanh Tile Transpose Unpack Xdivy
    ZerosLike _Arg _Retval
    """.split()  # noqa: SIM905
)


def is_worth_it(x):
    """Whether x [n] is very long, and in a traced function: what is called eagerly would be compiled at every call."""
    return tf.inside_function() and linalg.is_very_long(x)


def fused(function, *arguments):
    """function(*arguments), compiled if it is plain arithmetic. It is traced once either way.

    Args:
        function: of (nested structures of) tensors, pure.
        *arguments: what to call it with.
    """
    traced = tf.function(function, autograph=False).get_concrete_function(*tf.nest.map_structure(_spec, arguments))
    return (
        tf.function(traced, jit_compile=True, autograph=False)(*arguments)
        if _is_arithmetic(traced)
        else traced(*arguments)
    )


def _is_arithmetic(traced):
    graph = traced.graph.as_graph_def()
    nodes = [graph.node, *(inner.node_def for inner in graph.library.function)]
    return {node.op for part in nodes for node in part} <= _ARITHMETIC


def _spec(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype)
