"""A user's own code by what they type, and their mistakes in one line that points at the place.

my_package.methods:Mine     an object of an installed module, or of one below the current folder
my_method.py:Mine           an object of a file, which runs once however many of its objects are asked for
"""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import re
import sys

from trainloop import checks
from trainloop.errors import mistake

_REFERENCE = re.compile(r"(?P<source>.+\.py|[^\W\d]\w*(\.\w+)*):(?P<name>\w+)")


def is_reference(text):
    """Whether a text has the form module:name or file.py:name."""
    return _REFERENCE.fullmatch(text) is not None


def source(text):
    """The module or file that a text is from for which `is_reference` holds."""
    return _REFERENCE.fullmatch(text)["source"]


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
    origin, name = _REFERENCE.fullmatch(text).group("source", "name")
    module = _import_file(origin) if origin.endswith(".py") else _import_module(origin)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if suits(value) and _is_own(module, key, value)]
        listing = ", ".join(known) or "none"
        raise ValueError(f"{origin} has no {name!r}{checks.near_miss(name, known)}; its {wanted}: {listing}")
    return getattr(module, name)


def digests(*texts):
    """{source: digest of the file} for those of the texts that stand for a user's code. Nothing is imported for it.

    Two runs with the same arguments are the same only where these are.
    """
    sources = {source(text) for text in texts if isinstance(text, str) and is_reference(text)}
    return {found: digest(found) for found in sorted(sources)}


def digest(origin):
    """Of a file or a module's file, which is not imported: 16 digits of SHA-256, or "missing".

    Args:
        origin: see `source`.
    """
    path = pathlib.Path(origin) if origin.endswith(".py") else _file_of(origin)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path is not None and path.is_file() else "missing"


def _file_of(name):
    """The file of a module, found as an import would find it, but without running the packages that it lies in."""
    known = getattr(sys.modules.get(name), "__file__", None)
    if known is not None:
        return pathlib.Path(known)
    below, parts, spec = [*_without_current_folder(), ""], name.split("."), None
    for i in range(len(parts)):
        full = ".".join(parts[: i + 1])
        spec = below and importlib.machinery.PathFinder.find_spec(full, below)
        if not spec:
            return None
        below = spec.submodule_search_locations
    return pathlib.Path(spec.origin).resolve() if spec.has_location else None


def _without_current_folder():
    here = os.getcwd()
    return [entry for entry in sys.path if entry not in ("", ".", here)]


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
    name = _module_name(path.resolve())
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    module = importlib.util.module_from_spec(spec)
    # Known by its name before it runs, as any import is: pickles and dataclasses look it up there.
    sys.modules[spec.name] = module
    _OF_FILES.add(spec.name)
    try:
        _run_import(source, lambda: spec.loader.exec_module(module))
    except BaseException:  # as if it had never been tried
        sys.modules.pop(spec.name)
        if known is not None:
            sys.modules[spec.name] = known
        raise
    return module


# Names under which files of users stand in `sys.modules`.
_OF_FILES: set[str] = set()


def _module_name(path):
    """What a file is called as a module: never as one that others import, now or later (h5py.py, tensorflow.py)."""
    name = path.stem
    if name in sys.stdlib_module_names or (name not in _OF_FILES and _file_of(name) not in (None, path)):
        return f"{name}_of_user"
    return name


def _import_module(name):
    """A module, those of the current folder too; these come last, so that they take the place of no other."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append("")
    top, found = name.partition(".")[0], _file_of(name)
    for own in (pathlib.Path(f"{top}.py"), pathlib.Path(top, "__init__.py")):
        if own.is_file() and found is not None and own.resolve().parent not in found.parents:
            raise ValueError(
                f"{name} is {own} in this folder and {found} elsewhere; give the file, {top}.py:name, or rename it"
            )
    return _run_import(name, lambda: importlib.import_module(name))


def _run_import(source, run):
    """Import a user's code; whatever it raises becomes one line that points at their file."""
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
