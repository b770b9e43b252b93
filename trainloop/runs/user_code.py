"""A user's own code by what they type, and their mistakes in one line that points at the place.

my_package.methods:Mine     an object of an installed module, or of one below the current folder
my_method.py:Mine           an object of a file, which runs once however many of its objects are asked for
"""

import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys

from trainloop import checks
from trainloop.errors import mistake

_REFERENCE = re.compile(r"(?P<source>.+\.py|[^\W\d]\w*(\.\w+)*):(?P<name>\w+)")


def is_reference(text):
    """Whether a text has the form module:name or file.py:name."""
    return _REFERENCE.fullmatch(text) is not None


def find(text, suits, wanted):
    """The object that module:name or file.py:name stands for.

    Args:
        text: for which `is_reference` holds.
        suits: function of an object: whether it could be meant.
        wanted: what such objects are called in the plural, for the message.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a module that cannot be imported, or nothing of that name in it.
    """
    source, name = _REFERENCE.fullmatch(text).group("source", "name")
    module = _import_file(source) if source.endswith(".py") else _import_module(source)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if suits(value) and _is_own(module, key, value)]
        listing = ", ".join(known) or "none"
        raise ValueError(f"{source} has no {name!r}{checks.near_miss(name, known)}; its {wanted}: {listing}")
    return getattr(module, name)


def digests(*texts):
    """{source: digest of the file} for those of the texts that stand for a user's code, as it was imported.

    Two runs under the same words are the same only where these are.
    """
    references = [_REFERENCE.fullmatch(text) for text in texts if isinstance(text, str)]
    sources = {found["source"] for found in references if found}
    return {source: _digest(source) for source in sorted(sources)}


def call(text, function, *arguments):
    """function(*arguments), with what it raises as a ValueError of one line that points at the user's line.

    Args:
        text: what the user typed to name it.

    Raises:
        ValueError: whatever went wrong.
    """
    try:
        return function(*arguments)
    except Exception as error:
        raise mistake(text, error) from error


def _digest(source):
    is_file = source.endswith(".py")
    path = pathlib.Path(source if is_file else getattr(importlib.import_module(source), "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "missing"


def _is_own(module, key, value):
    """Whether a module defines this itself, for others to use."""
    imported = getattr(value, "__module__", None) != module.__name__
    return not key.startswith("_") and not (imported and (inspect.isroutine(value) or inspect.isclass(value)))


def _import_file(source):
    path = pathlib.Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{source}: there is no such file" + ("" if path.is_absolute() else f" in {path.cwd()}")
        )
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    module = importlib.util.module_from_spec(spec)
    # Known by its name before it runs, as any import is: pickles and dataclasses look it up there.
    sys.modules[spec.name] = module
    try:
        _run_import(source, lambda: spec.loader.exec_module(module))
    except BaseException:  # as if it had never been tried
        sys.modules.pop(spec.name)
        if known is not None:
            sys.modules[spec.name] = known
        raise
    return module


def _import_module(name):
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module of the current folder, as `python -m` finds it
    return _run_import(name, lambda: importlib.import_module(name))


def _run_import(source, run):
    """Import a user's code; whatever it raises is told in one line that points at their file."""
    try:
        return run()
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may want to end here
        where = _innermost_line(error)
        raise ValueError(f"importing {source} failed{where}: {type(error).__name__}: {error}") from error


def _innermost_line(error):
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    filename = frame.tb_frame.f_code.co_filename
    return "" if filename.startswith("<") else f" at {filename}:{frame.tb_lineno}"
