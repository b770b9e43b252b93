"""Names of the columns of a log, and what they tell: which are positions, and which are norms by variable."""

# Columns that say which step it is and how it ended, not how good: no display and no figure shows them.
BOOKKEEPING = ("step", "epoch", "phase", "samples", "status")

# What names of these columns begin with: too many of them, or too dull, to be shown one by one.
PREFIXES = ("norm/", "angle/", "evaluations/")


def is_rate(name):
    """Whether a column is a learning rate, of a method or of one inside it: worth a look only where it changes."""
    return name.rpartition(".")[2] == "learning_rate"


def by_kind(names):
    """{kind: {variable: column}} of those among the names that are norms by variable.

    Paths of the state and names of variables both have slashes: which is which shows where x, g or step is there too.
    """
    split = [name.split("/", 2) for name in names if name.startswith("norm/") and name.count("/") > 1]
    variables = {variable for _, kind, variable in split if kind in ("x", "g", "step")}
    kinds = {}
    for _, kind, rest in split:
        path, variable = _divided(rest, variables)
        kinds.setdefault("/".join([kind, *path]), {})[variable] = f"norm/{kind}/{rest}"
    return kinds


def _divided(rest, variables):
    """(leading parts, the variable behind them) of a name; no leading parts where none of the variables is behind."""
    parts = rest.split("/")
    ends = ["/".join(parts[i:]) for i in range(len(parts))]
    first = next((i for i, end in enumerate(ends) if end in variables), 0)
    return parts[:first], ends[first]
