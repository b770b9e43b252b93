"""From what a user types on the command line to objects: optimizers and their arguments, data, models, losses.

testgd                  a name of the register of its kind
my_package.methods:Mine an object in an installed module, or in one below the current folder
my_method.py:Mine       an object in a file
rad=2000                an argument of an optimizer's constructor
inner=momentum          for a wrapper: any of the above
inner.momentum=0.95     an argument of that one's constructor

What a user's object has to be:

--optimizer     a class, derived from `GlobalVectorOptimizer` or `GlobalObjectiveOptimizer`
--dataset       a function () -> `DataSplit`, or ((x_train, y_train), (x_test, y_test)) as Keras's loaders return it; or
                -> `Points` or a dict of what `Points` takes, the points of residuals by name
--model         a function (input_shape, outputs) -> `keras.Model`, or such a model, which is used as it is
--loss          a function (targets, predictions); a function (model, batch) if its first parameter is called `model`;
                or a `keras.losses.Loss`
--residuals     what `residuals` of `TrainLoop` takes: a function (model, batch), or a dict of functions (model,
                points); or a function () that returns it

`describe` tells what an optimizer takes: its first line, every argument with default and meaning, and an example.
"""

import ast
import functools
import inspect
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping

import keras

from trainloop import checks
from trainloop.algorithms import ALGORITHMS, WRAPPERS
from trainloop.data.datasets import load, make_split
from trainloop.data.files import ARRAY_NAMES
from trainloop.data.points import Points
from trainloop.data.split import DataSplit
from trainloop.errors import mistake
from trainloop.models import MODELS
from trainloop.objectives import losses
from trainloop.optimizer import validation
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer, GlobalVectorOptimizer
from trainloop.optimizer.wrapper import Wrapper
from trainloop.runs import user_code

_BASES = (Wrapper, GlobalObjectiveOptimizer, WholeVectorOptimizer)


def _find(text, suits, wanted):
    """`user_code.find`, for what can be meant at all: Python's own modules have functions that do anything.

    Raises:
        ValueError: it is from one of them, or imported from there.
    """
    source = user_code.source(text)
    if not source.endswith(".py") and _is_pythons(source):
        raise ValueError(f"{text} is from a module of Python itself, which has no {wanted} of this kind; give your own")
    found = user_code.find(text, suits, wanted)
    function = found.func if isinstance(found, functools.partial) else found
    own = not (inspect.isroutine(function) or inspect.isclass(function))
    if not own and _is_pythons(getattr(function, "__module__", None) or "builtins"):
        raise ValueError(
            f"{text} is {function!r} of Python itself, and none of the {wanted} that are meant; give your own"
        )
    return found


def _is_pythons(module):
    return module.partition(".")[0] in (*sys.stdlib_module_names, "test") and module != "__main__"


def find_optimizer(text):
    """The optimizer class that a name, `module:Class` or `file.py:Class` stands for.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: unknown name, a module that cannot be imported, no such class in it, or one that is not a
            `GlobalVectorOptimizer` or `GlobalObjectiveOptimizer`.
    """
    if not user_code.is_reference(text):
        return _named("optimizer", text, ALGORITHMS | WRAPPERS, "; or give module:Class or file.py:Class")
    found = _find(text, inspect.isclass, "classes")
    if not inspect.isclass(found) or not issubclass(found, WholeVectorOptimizer):
        if inspect.isclass(found):
            validation.old_api(found)
        raise ValueError(f"{text} is not a GlobalVectorOptimizer; derive it from trainloop.GlobalVectorOptimizer")
    return found


def find_model(text):
    """The builder (input_shape, outputs) -> model that a name or a reference to a user's function stands for.

    What the builder of a user raises is a ValueError of one line.

    Raises:
        FileNotFoundError, ValueError: as `find_optimizer`; it is neither a function nor a model.
    """
    if not user_code.is_reference(text):
        return _named("model", text, MODELS, "; or give module:function or file.py:function")
    found = _find(text, callable, "functions and models")
    if isinstance(found, keras.Model):
        return lambda input_shape, outputs: found
    if not callable(found):
        raise ValueError(f"{text} must be a function (input_shape, outputs) -> keras.Model, received {found!r}")
    return functools.partial(_build, text, found)


def _build(text, builder, input_shape, outputs):
    model = user_code.call(text, builder, input_shape, outputs)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{text} must return a keras.Model, received {type(model).__name__}; return the model it builds"
        )
    return model


def find_data(text, seed=0):
    """The `DataSplit` or `Points` that a name, a path or a reference to a user's function stands for.

    Args:
        text: what the user typed.
        seed: of the points of a dict.

    Raises:
        FileNotFoundError: see `load` and `find_optimizer`.
        ValueError: what the function raises, or returns if it is no data set.
    """
    if not user_code.is_reference(text):
        return load(text)
    found = _find(text, callable, "functions")
    data = user_code.call(text, found) if callable(found) else found
    if isinstance(data, (DataSplit, Points)):
        return data
    if isinstance(data, Mapping):
        return user_code.call(text, Points, data, None, seed)
    try:
        (x_train, y_train), (x_test, y_test) = data
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{text} must return a DataSplit or Points or ((x_train, y_train), (x_test, y_test)), received "
            f"{_parts(data)}"
        ) from error
    return make_split(text, dict(zip(ARRAY_NAMES, (x_train, y_train, x_test, y_test), strict=True)))


def _parts(data):
    """What a user's function returned in place of two pairs, and what to do."""
    if not isinstance(data, (tuple, list)):
        return f"{type(data).__name__}; return one of them"
    if [len(part) for part in data if isinstance(part, (tuple, list))] == [3, 3]:
        return "two triples; sample weights are for TrainLoop.run((x, y, weights)), here leave them out"
    return f"{len(data)} parts; return one of them"


def find_loss(text):
    """The arguments `loss` or `loss_fn` of `TrainLoop` that a Keras name or a reference stands for, as a dict.

    Losses of Keras that can take logits take logits, because that is what the models of this package put out.

    Raises:
        FileNotFoundError, ValueError: as `find_optimizer`; it is no loss.
    """
    if not user_code.is_reference(text):
        return {"loss": _keras_loss(text)}
    found = _find(text, callable, "functions")
    if inspect.isclass(found) and issubclass(found, keras.losses.Loss):
        found = user_code.call(text, found)
    if isinstance(found, keras.losses.Loss):
        return {"loss": found}
    if not callable(found) or inspect.isclass(found):
        raise ValueError(
            f"{text} must be a function (targets, predictions) or (model, batch), or a keras.losses.Loss, "
            f"received {found!r}"
        )
    return {"loss_fn": found} if losses.first_parameter(found) == "model" else {"loss": found}


def find_residuals(text):
    """What `residuals` of `TrainLoop` takes, that a reference stands for, or that a function without arguments returns.

    Raises:
        FileNotFoundError, ValueError: as `find_optimizer`; `ResidualLoss` raises for what are no residuals.
    """
    if not user_code.is_reference(text):
        raise ValueError(f"--residuals must be module:name or file.py:name, received {text!r}")
    found = _find(text, lambda value: callable(value) or isinstance(value, Mapping), "functions and dicts")
    returns_them = inspect.isfunction(found) and not inspect.signature(found).parameters
    return user_code.call(text, found) if returns_them else found


def parse_weights(texts):
    """`["bc=4", "pde=1"]` as `{"bc": 4.0, "pde": 1.0}`; None for none.

    Raises:
        ValueError: not of the form name=number, or a name given twice.
    """
    weights = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        try:
            weight = float(value)
        except ValueError:
            name = ""
        if not name or name in weights:
            raise ValueError(f"a loss weight must look like bc=4, once for each term, received {text!r}")
        weights[name] = weight
    return weights or None


def _keras_loss(name):
    try:
        loss = keras.losses.get(name)
    except ValueError as error:
        known = [n for n in dir(keras.losses) if n[0] != "_" and n not in ("Loss", "get", "serialize", "deserialize")]
        advice = f"{checks.near_miss(name, known)}; give a name of keras.losses, module:function or file.py:function"
        raise ValueError(f"unknown loss {name!r}{advice}") from error
    if isinstance(loss, keras.losses.Loss):
        takes_logits = "from_logits" in inspect.signature(type(loss)).parameters
        return type(loss)(from_logits=True) if takes_logits else loss
    takes_logits = "from_logits" in inspect.signature(loss).parameters
    return functools.partial(loss, from_logits=True) if takes_logits else loss


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
    except (ValueError, TypeError, SyntaxError):  # TypeError: of {[1]: 2}
        return text


def make_optimizer(cls, options):
    """An optimizer with these constructor arguments.

    Raises:
        ValueError: a key the constructor does not have, with the nearest one, a value it does not take, or whatever
            else goes wrong in it.
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
    except Exception as error:
        raise mistake(cls.__name__, error) from error


def _with_inner(options):
    """Options of a wrapper, with the inner optimizer made of `inner` and the options below it."""
    below = {key.removeprefix("inner."): value for key, value in options.items() if key.startswith("inner.")}
    own = {key: value for key, value in options.items() if not key.startswith("inner.")}
    if not isinstance(own.get("inner"), str):
        raise ValueError("a wrapper needs another optimizer; name it: -o inner=momentum -o inner.momentum=0.95")
    return own | {"inner": make_optimizer(find_optimizer(own["inner"]), below)}


def constructor_arguments(cls):
    """{name: default} of the constructor's arguments, with those of the bases as far as **kwargs passes them on.

    A default is `inspect.Parameter.empty` where there is none. Of this package's bases only what has to be named is
    passed on.
    """
    arguments, constructors = {}, [base for base in cls.__mro__ if "__init__" in vars(base)]
    for base in constructors:
        _, *parameters = inspect.signature(base.__init__).parameters.values()
        named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        if base is constructors[0] or base not in _BASES:
            named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for parameter in named:
            arguments.setdefault(parameter.name, parameter.default)
        if base is WholeVectorOptimizer or not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return arguments


def _named(kind, name, known, advice=""):
    if name.lower() not in known:
        listing = ", ".join(known)
        raise ValueError(f"unknown {kind} {name!r}{checks.near_miss(name, list(known))}; known: {listing}{advice}")
    return known[name.lower()]


# `rad: radius of the ball.`, `beta_1, beta_2: decay of the moments.`, `power (int): of the norm.`
_ENTRY = re.compile(r"    (?P<names>\w+(, \w+)*)( \(.*?\))?: (?P<text>.*)")

_WIDTH = 110


def describe(text):
    """An optimizer by what a user types for it: its first line, each argument with default and meaning, and an example.

    Args:
        text: see `plugins.find_optimizer`.

    Raises:
        FileNotFoundError, ValueError: as `plugins.find_optimizer`.
    """
    cls = find_optimizer(text)
    arguments, meanings = constructor_arguments(cls), _meanings(cls)
    if issubclass(cls, GlobalObjectiveOptimizer):
        arguments.pop("global_clipnorm", None)  # known to the constructor, which rejects it with the reason
    words = {name: _option(name, default) for name, default in arguments.items()}
    column = max(map(len, words.values()), default=0) + 4
    entries = [f"  {word:<{column - 2}}{meanings.get(name, '')}" for name, word in words.items()]
    lines = [textwrap.fill(entry, _WIDTH, subsequent_indent=" " * column) for entry in entries]
    first = (cls.__doc__ or "has no docstring").strip().splitlines()[0]
    return "\n".join([f"{text}: {first}", "", *lines, "", f"for example: {_example(text, arguments)}"])


def _option(name, default):
    if name == "inner":
        return "-o inner=METHOD"
    return f"-o {name}" + ("=..., required" if default is inspect.Parameter.empty else f"={default}")


def _example(text, arguments):
    """The optimizer with what it requires, and with the first of its arguments that has a default."""
    chosen = []
    for name, default in arguments.items():
        if name == "inner":
            chosen += ["inner=momentum", "inner.momentum=0.95"]
        elif default is inspect.Parameter.empty:
            chosen.append(f"{name}=...")
        elif name != "name" and default is not None:
            chosen.append(f"{name}={default}")
            break
    return shlex.join(["--optimizer", text, *(word for option in chosen for word in ("-o", option))])


def _meanings(cls):
    """{argument: what the docstrings say of it}: that of the class first, then those of its bases."""
    found = {}
    for base in (*cls.__mro__, GlobalVectorOptimizer):
        if issubclass(base, WholeVectorOptimizer):
            for names, text in _entries(inspect.cleandoc(vars(base).get("__doc__") or "")):
                for name in names:
                    found.setdefault(name, text)
    return found


def _entries(documentation):
    """(names, text) of what stands below `Args:`, without references to other docstrings."""
    section = documentation.partition("\nArgs:\n")[2]
    entries = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if entry := _ENTRY.match(line):
            entries.append((entry["names"].split(", "), [entry["text"]]))
        elif entries:
            entries[-1][1].append(line.strip())
    return [(names, " ".join(lines).strip()) for names, lines in entries if not lines[0].startswith("see `")]
