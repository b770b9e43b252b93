"""A traced loss as a function of the values of its variables, where its graph allows it. Nothing is written then.

A graph that takes variables only to read and to assign them, one after the other and outside of inner functions, is a
function of what they hold when it begins:

    read w              the value that w holds
    assign v to w       w holds v from here on

So each read is replaced by that value, and the assignments are left out: what remains is the same operations with the
same bits, for which neither x has to be written into the model nor anything to be put back. Updates of averages that
nothing reads are not even computed.

Whatever else is done with a variable, in an inner function, a loop, a branch, a gather, has to find it in the variable
itself; see `placement`.
"""

import tensorflow as tf

from trainloop.objectives.finder import outermost

_VALUE = "value_of_variable_"


class PureTrace:
    """The outputs of a graph for given values of variables.

    Args:
        graph: a `FuncGraph`, the `graph` of a concrete function.
        handles: of the variables, None for one that has none. Other variables are read where they are.
        unused: positions of variables that the graph need not contain.

    Attributes:
        exists: whether the graph has them, and does nothing with them but to read and to assign them.
    """

    def __init__(self, graph, handles, unused=()):
        self._graph = graph
        positions = {id(handle): i for i, handle in enumerate(handles) if handle is not None}
        self._captured, holding = {}, {}
        for outside, inside in graph.captures:
            position = positions.get(id(outermost(outside))) if inside.dtype == tf.resource else None
            if position is not None:
                holding[inside.op.name] = f"{_VALUE}{position}:0"
            else:
                self._captured[inside.name] = outside
        expected = {f"{_VALUE}{i}:0" for i in range(len(handles)) if i not in unused}
        is_complete = expected <= set(holding.values())
        self._definition = _without_variables(graph.as_graph_def(), holding) if is_complete else None
        self.exists = self._definition is not None
        self._compiled = tf.function(self._inserted, autograph=False)

    def __call__(self, values):
        """The outputs for a list of values, one per variable."""
        return self._compiled(values) if tf.executing_eagerly() else self._inserted(values)

    def _inserted(self, values):
        """The outputs, as operations of the graph that is being built."""
        given = {f"{_VALUE}{i}:0": value for i, value in enumerate(values)} | self._captured
        used = {name if ":" in name else f"{name}:0" for node in self._definition.node for name in node.input}
        capture = tf.compat.v1.get_default_graph().capture
        outputs = tf.graph_util.import_graph_def(
            self._definition,
            input_map={name: capture(tensor) for name, tensor in given.items() if name in used},
            return_elements=[output.name for output in self._graph.outputs],
            name="loss",
        )
        for output, traced in zip(outputs, self._graph.outputs, strict=True):
            output.set_shape(traced.shape)
        return outputs


def _without_variables(definition, holding):
    """The graph without the reads and assignments of some variables; None where it does something else with them.

    Args:
        definition: `GraphDef`, operations in the order in which they run.
        holding: {name of the placeholder of a variable: what it holds, the name of a tensor}.
    """
    read, kept, left_out = {}, tf.compat.v1.GraphDef(), set(holding)
    kept.versions.CopyFrom(definition.versions)
    kept.library.CopyFrom(definition.library)
    for node in definition.node:
        inputs = [read.get(name.partition(":")[0], name) for name in node.input]
        if node.op == "ReadVariableOp" and inputs[0] in holding:
            read[node.name] = holding[inputs[0]]
        elif node.op == "AssignVariableOp" and inputs[0] in holding:
            holding[inputs[0]] = inputs[1]
        elif holding.keys() & {name.partition(":")[0] for name in inputs}:
            return None
        elif node.op != "Placeholder":
            kept.node.add().CopyFrom(node)
            kept.node[-1].input[:] = [name for name in inputs if name[1:] not in left_out or name[0] != "^"]
            kept.node[-1].attr.pop("_class", None)  # the variable beside which it should run is not there
            continue
        left_out.add(node.name)
    return kept
