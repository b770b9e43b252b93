"""From what a user types on the command line to a class and its arguments.

testgd                  a name of the register
my_package.methods:Mine a class in an installed module, or in one below the current folder
my_method.py:Mine       a class in a file
rad=2000                an argument of its constructor
inner=momentum          for a method around another one: any of the above
inner.momentum=0.95     an argument of that one's constructor
"""

import ast
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback

import keras

from trainloop import checks, refusals
from trainloop.algorithms import ALGORITHMS, WRAPPERS
from trainloop.models import MODELS
from trainloop.optimizer import GlobalVectorOptimizer
from trainloop.whole_vector import WholeVectorOptimizer


def find_optimizer(text):
    """The optimizer class that a name, `module:Class` or `file.py:Class` stands for.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: unknown name, a module that cannot be imported, no such class in it, or one that is not a
            `GlobalVectorOptimizer` or `GlobalObjectiveOptimizer`.
    """
    if ":" not in text:
        return _named("optimizer", text, ALGORITHMS | WRAPPERS, "; or give module:Class or file.py:Class")
    source, _, name = text.rpartition(":")
    module = _import_file(source) if source.endswith(".py") else _import_module(source)
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        listing = ", ".join(classes) or "none"
        raise ValueError(f"{source} has no {name!r}{checks.near_miss(name, classes)}; its classes: {listing}")
    found = getattr(module, name)
    if not inspect.isclass(found) or not issubclass(found, WholeVectorOptimizer):
        if inspect.isclass(found):
            refusals.old_api(found)
        raise ValueError(f"{text} is not a GlobalVectorOptimizer; derive it from trainloop.GlobalVectorOptimizer")
    return found


def find_model(name):
    """The builder (input_shape, classes) -> model under a name.

    Raises:
        ValueError: unknown name, with the nearest one.
    """
    return _named("model", name, MODELS)


def parse_options(texts):
    """`["rad=2000", "storage=dense"]` as `{"rad": 2000, "storage": "dense"}`.

    Values are Python literals; what is none of these is a string.

    Raises:
        ValueError: not of the form key=value, or a key given twice.
    """
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"an option must look like key=value, received {text!r}")
        if key in options:
            raise ValueError(f"option {key} is given twice, as {options[key]!r} and as {value}")
        options[key] = _literal(value)
    return options


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def make_optimizer(cls, options):
    """An optimizer with these constructor arguments.

    Raises:
        ValueError: a key the constructor does not have, with the nearest one, or a value it does not take.
    """
    known = constructor_arguments(cls)
    options = _with_inner(options) if "inner" in known else options
    for key in options:
        if key not in known:
            listing = f"it takes {', '.join(known)}"
            raise ValueError(f"{cls.__name__} has no option {key!r}{checks.near_miss(key, known)}; {listing}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{cls.__name__}: {' '.join(str(error).split())}") from error


def _with_inner(options):
    """Options of a method around another one, with that one made of `inner` and the options below it."""
    below = {key.removeprefix("inner."): value for key, value in options.items() if key.startswith("inner.")}
    own = {key: value for key, value in options.items() if not key.startswith("inner.")}
    if not isinstance(own.get("inner"), str):
        raise ValueError("this method works around another one; name it: -o inner=momentum -o inner.momentum=0.95")
    return own | {"inner": make_optimizer(find_optimizer(own["inner"]), below)}


def constructor_arguments(cls):
    """Names of the constructor's arguments, with those of the base where it passes **kwargs on."""
    own = inspect.signature(cls).parameters.values()
    names = [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.kind is p.VAR_KEYWORD for p in own):
        base = inspect.signature(GlobalVectorOptimizer).parameters.values()
        names += [p.name for p in base if p.kind is p.KEYWORD_ONLY and p.name not in names]
    return names


def _named(kind, name, known, advice=""):
    if name.lower() not in known:
        listing = ", ".join(known)
        raise ValueError(f"unknown {kind} {name!r}{checks.near_miss(name, list(known))}; known: {listing}{advice}")
    return known[name.lower()]


def _import_file(source):
    path = pathlib.Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{source}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Known by its name before it runs, as any import is: pickles and dataclasses look it up there.
    sys.modules[spec.name] = module
    return _run_import(source, lambda: spec.loader.exec_module(module)) or module


def _import_module(name):
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module of the current folder, as `python -m` finds it
    return _run_import(name, lambda: importlib.import_module(name))


def _run_import(source, run):
    """Import a user's code; whatever it raises is told in one line that points at their file."""
    try:
        return run()
    except Exception as error:
        where = _innermost_line(error)
        raise ValueError(f"importing {source} failed{where}: {type(error).__name__}: {error}") from error


def users_line(error):
    """The innermost line of an exception that is a user's, as " at file:line in function"; empty where there is none.

    Lines of this package, of libraries and of the program that was started are nobody's fault.
    """
    libraries = [pathlib.Path(module.__file__).resolve().parent for module in (sys.modules[__package__], os)]
    libraries.append(pathlib.Path(keras.__file__).resolve().parent.parent)
    program = getattr(sys.modules["__main__"], "__file__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = pathlib.Path(frame.filename).resolve()
        ours = program is not None and file == pathlib.Path(program).resolve()
        if file.is_file() and not ours and not any(library in file.parents for library in libraries):
            return f" at {frame.filename}:{frame.lineno} in {frame.name}"
    return ""


def _innermost_line(error):
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    filename = frame.tb_frame.f_code.co_filename
    return "" if filename.startswith("<") else f" at {filename}:{frame.tb_lineno}"
