"""What a method takes, told to somebody on a command line.

adam: Adam: adaptive moments, decoupled weight decay.   Kingma and Ba (2015), algorithm 1, end of section 2.

  -o learning_rate=0.001  t, positive.
  -o beta_1=0.9           decay of the two moments, in [0, 1).
  ...

for example: --optimizer adam -o learning_rate=0.001
"""

import inspect
import re
import shlex
import textwrap

from trainloop import plugins
from trainloop.optimizer import GlobalObjectiveOptimizer, GlobalVectorOptimizer
from trainloop.whole_vector import WholeVectorOptimizer

# `rad: radius of the ball.`, `beta_1, beta_2: decay of the moments.`, `power (int): of the norm.`
_ENTRY = re.compile(r"    (?P<names>\w+(, \w+)*)( \(.*?\))?: (?P<text>.*)")

_WIDTH = 110


def describe(text):
    """A method by what a user types for it: its first line, every argument with default and meaning, and an example.

    Args:
        text: see `plugins.find_optimizer`.

    Raises:
        FileNotFoundError, ValueError: as `plugins.find_optimizer`.
    """
    cls = plugins.find_optimizer(text)
    arguments, meanings = plugins.constructor_arguments(cls), _meanings(cls)
    if issubclass(cls, GlobalObjectiveOptimizer):
        arguments.pop("global_clipnorm", None)  # known to the constructor, which refuses it with the reason
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
    """The method with what it requires, and with the first of its arguments that has a default."""
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
