"""What a computation reads, writes and draws: found in its graph, nothing is run.

A loss is code. It may call a `tf.function`, recompute a block, count in a plain `tf.Variable`, draw from a generator.
All of that ends as operations of a graph, so a graph that has been traced tells what an objective has to put back, and
what it cannot freeze:

    reads, writes     variables, through functions, loops and branches; also state of random generators
    random            operations with a state that is no variable: `tf.random.normal` and the like
    opaque            Python functions inside of the graph, whose code is unknown
    stopped           operations behind which derivatives end without a word: `tf.stop_gradient`, and gradients that
                      have no gradient (bilinear resizing, fake quantisation)
    soft_targets      a fused crossentropy whose targets depend on variables: its second derivatives leave them out

Resources are named by `id(variable.handle)`. Functions are followed by the positions of their arguments.
"""

import dataclasses
import re

import tensorflow as tf

# Operations that change a variable, by the beginning of their names. Those of generators read and write.
_WRITES = re.compile(r"Assign|Resource(Scatter|Apply|Sparse|StridedSliceAssign|CountUpTo)|Rng|Stateful(?!Part)")

_RANDOM = {
    *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal"),
    *("RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle", "Multinomial"),
    *("SampleDistortedBoundingBox", "SampleDistortedBoundingBoxV2", "AllCandidateSampler", "UniformCandidateSampler"),
    *("LogUniformCandidateSampler", "LearnedUnigramCandidateSampler", "FixedUnigramCandidateSampler"),
    "ThreadUnsafeUnigramCandidateSampler",
}
_OPAQUE = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_STOPPED = {
    *("StopGradient", "ResizeBilinearGrad", "SparseAddGrad", "FakeQuantWithMinMaxArgsGradient"),
    *("FakeQuantWithMinMaxVarsGradient", "FakeQuantWithMinMaxVarsPerChannelGradient"),
}
_FUSED = {"SoftmaxCrossEntropyWithLogits"}

# Attributes of an operation that hold functions, and how many of its inputs come before their arguments.
_FUNCTIONS = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall", "RemoteCall"), (("f",), 0)),
    **dict.fromkeys(("While", "StatelessWhile"), (("cond", "body"), 0)),
    **dict.fromkeys(("If", "StatelessIf"), (("then_branch", "else_branch"), 1)),
    **dict.fromkeys(("Case", "StatelessCase"), (("branches",), 1)),
}


@dataclasses.dataclass
class Found:
    """What a graph does; see the top of this file.

    Attributes:
        reads: ids of handles.
        writes: {id of a handle: DType}.
        handles: {id: handle}, of all of them.
        random, opaque, stopped: {name of an operation: where it is in the graph}.
        soft_targets: whether there is such a crossentropy.
        coarsest: dtype of the fewest digits through which values that depend on moved variables go, before they are
            cast back: resizing computes in float32; None where nothing is cast.
        written: variables besides x that it writes and that are to be put back.
        others: variables that it reads, besides those of x and what it writes; None where one of them is not known.
        traced: False where a computation only runs as Python; then nothing is known of it.
    """

    reads: set = dataclasses.field(default_factory=set)
    writes: dict = dataclasses.field(default_factory=dict)
    handles: dict = dataclasses.field(default_factory=dict)
    random: dict = dataclasses.field(default_factory=dict)
    opaque: dict = dataclasses.field(default_factory=dict)
    stopped: dict = dataclasses.field(default_factory=dict)
    soft_targets: bool = False
    coarsest: tf.DType | None = None
    written: list = dataclasses.field(default_factory=list)
    others: list | None = None
    traced: bool = True


def find(graph, moved=()):
    """What a traced graph does.

    Args:
        graph: a `FuncGraph`, such as the `graph` of a concrete function.
        moved: ids of the handles of variables on which targets of a crossentropy should not depend.

    Returns:
        `Found`.
    """
    found, definition = Found(), graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    resources = {}
    for outside, inside in graph.captures:
        if inside.dtype == tf.resource and (handle := outermost(outside)) is not None:
            resources[inside.op.name] = id(handle)
            found.handles[id(handle)] = handle
    _Walk(found, functions, set(moved)).through(definition.node, resources, frozenset())
    return found


def outermost(tensor):
    """The handle behind a captured resource, through all graphs around; None for an argument of one of them."""
    while not hasattr(tensor, "numpy"):
        name, graph = tensor.op.name, tensor.graph
        outside = [captured for captured, inside in getattr(graph, "captures", ()) if inside.op.name == name]
        if not outside:
            return None
        tensor = outside[0]
    return tensor


class _Walk:
    """Goes through nodes and the functions they call."""

    def __init__(self, found, functions, moved):
        self._found, self._functions, self._moved = found, functions, moved
        self._done = {}  # results of functions by name and arguments

    def through(self, nodes, resources, tainted):
        """One graph or function.

        Args:
            nodes: of it, in topological order.
            resources: {name of a node or argument: id of a handle}.
            tainted: names of arguments that depend on moved variables.

        Returns:
            Whether any result depends on them.
        """
        resources, tainted = dict(resources), set(tainted)
        for node in nodes:
            inputs = [name.partition(":")[0] for name in node.input if not name.startswith("^")]
            known = [resources.get(name) for name in inputs]
            depends = any(name in tainted for name in inputs)
            if node.op in _FUNCTIONS:
                depends |= self._call(node, known, [name in tainted for name in inputs])
            elif node.op == "Identity" and known[0] is not None:
                resources[node.name] = known[0]
            else:
                depends |= self._note(node, [key for key in known if key is not None])
                if node.op in _FUSED and inputs[1] in tainted:
                    self._found.soft_targets = True
                if node.op == "Cast" and depends:
                    self._note_cast(tf.as_dtype(node.attr["SrcT"].type), tf.as_dtype(node.attr["DstT"].type))
            if depends:
                tainted.add(node.name)
        return len(tainted) > 0

    def _note(self, node, touched):
        """Note what an operation does; whether it reads a moved variable."""
        found = self._found
        for names, kind in ((_RANDOM, found.random), (_OPAQUE, found.opaque), (_STOPPED, found.stopped)):
            if node.op in names:
                kind.setdefault(node.op, node.name)
        for key in touched:
            if _WRITES.match(node.op):
                dtype = node.attr["dtype" if node.op.startswith(("Assign", "Resource")) else "shape_dtype"].type
                found.writes[key] = tf.as_dtype(dtype) if dtype and node.op.startswith(("A", "Res")) else tf.int64
            if not node.op.startswith("AssignVariable"):
                found.reads.add(key)
        return any(key in self._moved for key in touched)

    def _note_cast(self, source, target):
        found = self._found
        widens = source.is_floating and target.is_floating and source.size < target.size
        if widens and (found.coarsest is None or source.size < found.coarsest.size):
            found.coarsest = source

    def _call(self, node, known, tainted):
        attributes, skipped = _FUNCTIONS[node.op]
        names = []
        for attribute in attributes:
            value = node.attr[attribute]
            names += [function.name for function in value.list.func] or [value.func.name]
        results = [self._function(name, known[skipped:], tainted[skipped:]) for name in names]
        return any(results)

    def _function(self, name, known, tainted):
        key = name, tuple(known), tuple(tainted)
        if key not in self._done:
            self._done[key] = False  # while it is being looked at
            function = self._functions[name]
            arguments = [argument.name for argument in function.signature.input_arg]
            resources = {a: k for a, k in zip(arguments, known, strict=False) if k is not None}
            depending = {a for a, t in zip(arguments, tainted, strict=False) if t}
            self._done[key] = self.through(_sorted(function.node_def), resources, depending)
        return self._done[key]


def _sorted(nodes):
    """Nodes of a function in topological order, in which the library does not keep them."""
    by_name, order, seen = {node.name: node for node in nodes}, [], set()
    stack = list(reversed(nodes))
    while stack:
        node = stack[-1]
        waiting = [] if node.name in seen else [n.partition(":")[0].lstrip("^") for n in node.input]
        waiting = [by_name[name] for name in waiting if name in by_name and name not in seen]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if node.name not in seen:
            seen.add(node.name)
            order.append(node)
    return order
