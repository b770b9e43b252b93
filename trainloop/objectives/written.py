"""What a loss writes, read off its trace: variables that an objective puts back, or weights, which is an error."""

import logging

from trainloop.objectives.finder import Found, find
from trainloop.objectives.placement import RawVariable
from trainloop.vectors.layout import native

_LOG = logging.getLogger("trainloop")

# Variables that were named in the log because a loss reads them and they are not trained.
_named: set[str] = set()


def untraced(model):
    """A `Found` for a loss that runs only as Python: it may write all that is not trained."""
    return Found(traced=False, written=_not_trained(model))


def found_in(graph, model, vector, counters=()):
    """What a traced loss does, with the variables that it writes and reads besides x.

    Args:
        graph: of the trace.
        model: that the loss is of.
        vector: the `VariableVector` of x.
        counters: variables that an observer of the loss writes.

    Returns:
        `Found`.

    Raises:
        ValueError: the loss writes weights that are trained.
    """
    names = {id(v.handle): n for v, n in zip(vector.native, vector.layout.names, strict=True) if hasattr(v, "handle")}
    found, tracked = find(graph, set(names)), list(graph.variables)
    if own := [names[key] for key in found.writes if key in names]:
        raise ValueError(
            f"the forward pass writes weights that are trained ({', '.join(own)}), so the loss is no function of "
            "them; compute with a changed copy in place of assigning to the weight, or make it non-trainable"
        )
    _name_untrained(model, tracked, names)
    known = {id(v.handle): v for v in [*tracked, *_not_trained(model)] if hasattr(v, "handle")}
    counted = {id(native(v).handle) for v in counters}
    written = [key for key in found.writes if key not in counted]
    found.written = [known[k] if k in known else RawVariable(found.handles[k], found.writes[k]) for k in written]
    others = found.reads - {*names, *counted, *written}
    if tracked and others <= known.keys():
        found.others = [v for key, v in known.items() if key in others]
    return found


def _not_trained(model):
    return [native(v) for v in getattr(model, "non_trainable_variables", ())]


def _name_untrained(model, variables, names):
    """Name in the log what a loss reads, could be trained and is not part of x; once for each."""
    trained = [native(v) for v in getattr(model, "variables", ())]
    known = {*names, *(id(v.handle) for v in trained if hasattr(v, "handle"))}
    read = [v for v in variables if v.trainable and v.dtype.is_floating and id(v.handle) not in known]
    if new := {f"{v.name} {tuple(v.shape)}" for v in read} - _named:
        _named.update(new)
        listing = ", ".join(sorted(new))
        _LOG.warning("the loss reads variables that are no weights of the model and are not trained: %s", listing)
