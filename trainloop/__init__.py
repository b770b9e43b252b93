"""Training loops for algorithms that need a whole Keras network as one vector.

A `tf.function`-compiled loop runs the model under a gradient tape, lays every gradient and every variable end to end
into `g` and `x`, calls the algorithm once, splits the result and assigns it back. Each part is usable alone:
`FlatLayout` and `VariableVector` in a loop of your own, a `GlobalVectorOptimizer` in `model.compile`, `minimize` for
any function of a vector, `TrainLoop`.
"""

import importlib.util
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from trainloop.versions import VERSION as __version__  # noqa: F401, N811

_SCRIPTS = ("train", "compare", "launch", "benchmark", "faults")


def _is_command_line() -> bool:
    """Whether this process is `trainloop ...`, `python -m trainloop ...` or one of the programs in scripts/.

    Their `--help` needs no TensorFlow, and before they load it they choose its settings. So they get the public names
    when they first use one. Everybody else gets them at once, because Keras finds an optimizer in a saved model only
    when its class exists.
    """
    if "keras" in sys.modules:
        return False
    program = pathlib.PurePath(sys.argv[0] if getattr(sys, "argv", None) else "")
    if program.name == "-m":  # Python is still looking for the module
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["trainloop"]
    return program.stem == "trainloop" or (program.parent.name == "scripts" and program.stem in _SCRIPTS)


if TYPE_CHECKING or not _is_command_line():
    from trainloop.public import *  # noqa: F403
    from trainloop.public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if importlib.util.find_spec(f"{__name__}.{name}"):  # `from trainloop import checks`, by a module of its own
            return importlib.import_module(f"{__name__}.{name}")
        public = importlib.import_module("trainloop.public")
        globals().update({public_name: getattr(public, public_name) for public_name in (*public.__all__, "__all__")})
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module 'trainloop' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(sys.modules[__name__].__all__)
