"""What a user may ask of the storage of a shared matrix, in one short string.

    "auto"                       dense while the matrix is small, else factored
    "dense"                      n x n numbers; a few changes wait beside the matrix and are applied together
    "dense:0"                    every change goes into the matrix at once; "dense:4": four may wait
    "factored"                   the history of changes, growing
    "factored:1000:restart"      at most 1000 changes; then B is the identity again
    "factored:1000:subspace"     at most 1000; then the half that matters most is kept
    "factored:1000:dense"        at most 1000; then n x n numbers
    "factored:1000:error"        at most 1000; then the run ends with `Status.HISTORY_FULL`
    "sharded"                    as "dense", with the n x n numbers sharded over devices or workers, see `shards`
    "sharded:0"                  as "dense:0"
    "sharded:factored"           as "factored", with the vectors of the history sharded; with a capacity likewise

One string, because it passes unchanged through constructors, saved configurations and command lines.
"""

import dataclasses

STORAGES = ("auto", "dense", "factored", "sharded")
WHEN_FULL = ("restart", "subspace", "dense", "error")


@dataclasses.dataclass(frozen=True)
class StorageChoice:
    """A parsed storage spec.

    `kind` is "auto", "dense" or "factored"; `capacity` the number of changes kept beside or instead of the matrix, None
    for the default; `when_full` one of `WHEN_FULL`, or None: dense applies them, factored grows; `sharded` tells
    whether the numbers are sharded.
    """

    kind: str
    capacity: int | None = None
    when_full: str | None = None
    sharded: bool = False

    @classmethod
    def parse(cls, spec):
        """Read a spec as in this file's first lines.

        Raises:
            ValueError: anything else.
        """
        choice = _parts(spec)
        if choice is None:
            raise ValueError(
                f"storage must be one of {', '.join(STORAGES)}, or with a capacity 'dense:8', or with a capacity and "
                f"what happens when it is full 'factored:1000:{'|'.join(WHEN_FULL)}'; received {spec!r}"
            )
        return cls(*choice)


def check_storage(spec):
    """The spec itself, if `StorageChoice.parse` can read it: for constructors.

    Raises:
        ValueError: it cannot.
    """
    StorageChoice.parse(spec)
    return spec


def check_no_storage(method, options):
    """For constructors of optimizers whose steps need the eigenvectors of their matrix.

    Args:
        method: name of the class.
        options: the keyword arguments that it does not know.

    Raises:
        ValueError: "storage" is among them.
    """
    if "storage" in options:
        raise ValueError(
            f"{method} takes no storage: it needs the eigenvectors of the whole matrix, n x n numbers at one place; "
            "TestGD, BFGS, SSBFGS, SSBroyden, SR1 and the methods of Shor take one"
        )


def _parts(spec):
    """(kind, capacity, when_full, sharded), or None where the spec means nothing."""
    if not isinstance(spec, str):
        return None
    kind, *rest = spec.split(":")
    sharded = kind == "sharded"
    if sharded:
        kind, rest = ("factored", rest[1:]) if rest[:1] == ["factored"] else ("dense", rest)
    if kind not in STORAGES or not all(part.isdecimal() for part in rest[:1]):
        return None
    if not rest:
        return kind, None, None, sharded
    if kind == "dense" and len(rest) == 1:
        return kind, int(rest[0]), None, sharded
    if kind == "factored" and len(rest) == 2 and int(rest[0]) > 0 and rest[1] in WHEN_FULL:
        return kind, int(rest[0]), rest[1], sharded
    return None
