"""Specifications of storages: each one read, and everything else rejected with what there is."""

import pytest

from trainloop.matrices.storage_spec import StorageChoice, check_storage

SPECS = {
    "auto": ("auto", None, None),
    "dense": ("dense", None, None),
    "dense:0": ("dense", 0, None),
    "dense:4": ("dense", 4, None),
    "factored": ("factored", None, None),
    "factored:1:restart": ("factored", 1, "restart"),
    "factored:1000:restart": ("factored", 1000, "restart"),
    "factored:1000:subspace": ("factored", 1000, "subspace"),
    "factored:1000:dense": ("factored", 1000, "dense"),
    "factored:1000:error": ("factored", 1000, "error"),
}
SPECS = {spec: (*meaning, False) for spec, meaning in SPECS.items()} | {
    "sharded": ("dense", None, None, True),
    "sharded:0": ("dense", 0, None, True),
    "sharded:4": ("dense", 4, None, True),
    "sharded:factored": ("factored", None, None, True),
    "sharded:factored:9:restart": ("factored", 9, "restart", True),
}

WRONG = [
    *("", "dens", "Dense", " dense", "dense ", "spare"),
    *("auto:8", "auto:8:restart", "sharded:", "sharded:auto", "sharded:dense", "sharded:8:restart"),
    *("sharded:factored:9", "sharded:factored:", "sharded:sharded", "factored:sharded", "dense:sharded"),
    *("dense:", "dense:-1", "dense:1.5", "dense:many", "dense:8:restart", "dense:8:"),
    *("factored:", "factored:9", "factored:0:restart", "factored:-1:restart", "factored:1e3:restart"),
    *("factored:restart", "factored:9:", "factored:9:grow", "factored:9:apply", "factored:9:Restart"),
    *("factored:9:restart:", "factored::restart", None, 8, True, b"dense", ("dense", 8), StorageChoice("dense")),
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_specification_is_read(spec):
    choice = StorageChoice.parse(spec)
    assert (choice.kind, choice.capacity, choice.when_full, choice.sharded) == SPECS[spec]
    assert check_storage(spec) is spec


@pytest.mark.parametrize("spec", WRONG, ids=repr)
@pytest.mark.parametrize("read", [StorageChoice.parse, check_storage])
def test_everything_else_is_rejected_with_what_there_is(read, spec):
    with pytest.raises(ValueError, match="storage must be one of") as refusal:
        read(spec)
    assert str(refusal.value) == (
        "storage must be one of auto, dense, factored, sharded, or with a capacity 'dense:8', or with a capacity and "
        f"what happens when it is full 'factored:1000:restart|subspace|dense|error'; received {spec!r}"
    )
