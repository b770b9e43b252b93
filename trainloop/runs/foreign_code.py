"""Code that a config.json names: it may be another person's file, so what it would run is shown before it runs.

It runs only if file and content are those that the run has recorded, or if it is named again on the command line. What
that is worth stands in docs/what-can-go-wrong.md: whoever sends a config.json may send the code with it.
"""

from trainloop.runs import specs, user_code
from trainloop.runs.settings import NAMING_CODE


def named_in(settings):
    """Texts of settings that stand for code, with what a user types to name it: list of (options, text)."""
    texts = [(f"--{name} {settings.get(name)}", settings.get(name)) for name in NAMING_CODE]
    texts += [(f"-o {option}", option.partition("=")[2]) for option in settings.get("options") or ()]
    then = settings.get("then") or ()
    all_phases = " ".join(f"--then {word}" for word in then)  # one of them alone would take the place of all
    texts += [(all_phases, text) for text in specs.values(map(specs.phase, then))]
    return [(options, text) for options, text in texts if isinstance(text, str) and user_code.is_reference(text)]


def check(path, settings, typed, recorded):
    """Raise unless all the code that a run would import is what was recorded, or was named on the command line.

    Args:
        path: of the config.json.
        settings: of the run, from there and from the command line.
        typed: those of the command line alone.
        recorded: {source: digest}, what config.json says of the code; anything.

    Returns:
        list of lines: what will be run because config.json names it.

    Raises:
        ValueError: names the code, and what to do.
        FileNotFoundError: there is no such file.
    """
    again = {user_code.source(text) for _, text in named_in(typed)}
    lines = {}
    for options, text in named_in(settings):
        source = user_code.source(text)
        if source in again:
            continue
        here, there = user_code.digest(source), recorded.get(source) if isinstance(recorded, dict) else None
        if here == "missing":
            raise FileNotFoundError(f"{path} names {text}, and there is no file of {source} here; put it back")
        if here != there:
            why = "was edited since it began" if there else "was not recorded there"
            raise ValueError(
                f"{path} names code that is not what its run recorded: {source} {why}; look at it, and name it again "
                f"to run it: {options}"
            )
        lines[source] = f"runs {source} (SHA-256 {here}...), because {path} names it"
    return list(lines.values())
