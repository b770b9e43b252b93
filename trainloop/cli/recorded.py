"""Settings from a config.json, for `--config` and `--resume`: of the same types as on the command line, or one line."""

import pathlib

import click

from trainloop.cli.common import BatchSize, echo, import_tensorflow, in_one_line

# Types of Python that JSON has for the values of an option, by the name of its type of click.
_KINDS: dict[str, tuple[type, ...]] = {BatchSize.name: (int, str), "boolean": (bool,), "integer range": (int,)}
_KINDS |= dict.fromkeys(("float", "float range"), (float, int))


def read_config(ctx, param, path):
    """Use the recorded settings of a run as the defaults of all options."""
    if path is None:
        return None
    try:
        ctx.obj = recorded(ctx, path)
    except (ValueError, OSError) as error:
        raise click.UsageError(in_one_line(error)) from error
    ctx.default_map = ctx.obj.settings
    return path


def recorded(ctx, path):
    """What a config.json says of the settings that this program has."""
    import_tensorflow()
    from trainloop.runs import config as run_config

    params = {param.name: param for param in ctx.command.params}
    found = run_config.read(path)
    for name, value in found.settings.items():
        check_type(ctx, path, params[name], value)
    return found


def check_type(ctx, path, param, value):
    """Raise for a value that the command line would not take.

    Args:
        path: of the config.json, for the message.
        param: the option.
        value: from JSON.

    Raises:
        ValueError: names the setting, what it takes, and the value.
    """
    if value is None and not param.multiple and not isinstance(param.default, (bool, int, float, str)):
        return  # as on the command line, where it need not be given
    kinds = _KINDS.get(param.type.name, (str,))
    values = value if param.multiple and isinstance(value, list) else [value]
    fits = all(isinstance(v, kinds) and (bool in kinds or not isinstance(v, bool)) for v in values)
    if not fits or param.multiple is not isinstance(value, list):
        expected = " or ".join(kind.__name__ for kind in kinds)
        listed = f"a list of {expected}" if param.multiple else expected
        raise ValueError(f"{path}: {param.name} must be {listed}, received {value!r}; put the right value there")
    try:
        for one in values:
            param.type.convert(one, param, ctx)
    except click.BadParameter as error:
        raise ValueError(f"{path}: {param.name}: {error.message}; put the right value there") from error


def chosen(ctx, settings):
    """The settings with those of --config, or of the run to --resume, where nothing else is given.

    Code that only the file names is shown, or raises, before it is imported.

    Returns:
        (settings, function that compares what comes of them with the run that is repeated).
    """
    given = [name for name in settings if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    typed = {name: settings[name] for name in given}
    if ctx.obj is not None:
        return repeated(ctx.obj, settings, typed)
    if settings["resume"] and settings["run_dir"] is not None:
        config = pathlib.Path(settings["run_dir"], "config.json")
        if config.exists():
            of = recorded(ctx, config)
            settings = of.continued(settings, given)
            name_code(of, settings, typed)
    return settings, lambda facts: None


def repeated(of, settings, typed):
    """The same for a run that is repeated, and says so."""
    from trainloop.runs import config as run_config

    settings, changed = of.overridden(settings, list(typed))
    if not settings["quiet"]:
        echo(run_config.message(of.path, changed))
    if of.other_versions():
        echo(of.other_versions(), err=True)
    name_code(of, settings, typed)

    def check_facts(facts):
        of.check(facts, changed)
        if of.other_code(facts):
            echo(of.other_code(facts), err=True)

    return settings, check_facts


def name_code(of, settings, typed):
    """Say what code will be run because a config.json names it, or raise."""
    from trainloop.runs import foreign_code

    for line in foreign_code.check(of.path, settings, typed, of.facts.get("code")):
        echo(line, err=True)
