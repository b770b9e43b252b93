"""Which display a run has, by the argument `verbose` of `TrainLoop.run`."""

from trainloop.hooks.base import Hook


def displays(verbose: str | int | bool, hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    """The display that `verbose` asks for, or none.

    Args:
        verbose: "auto" shows a run on a terminal or in a notebook; 0 or False is silent; 1 or
            True is a view that moves, where that can be, else lines, about one a second; 2 is one line for every epoch,
            however short, as in Keras.
        hooks: of the loop. Where one of them is a display, there is no second one.

    Raises:
        ValueError: another value.
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, received {verbose!r}")
    if verbose == 0:
        return ()
    # Not before it is needed: a program that prints nothing imports nothing to print with.
    from rich.console import Console

    from trainloop.hooks.display import LiveDisplay, PlainLines

    console = Console()
    # A run that a hook of another one starts would write over that one's view.
    shown = LiveDisplay.showing or any(isinstance(hook, (LiveDisplay, PlainLines)) for hook in hooks)
    if shown or (verbose == "auto" and not (console.is_interactive or console.is_jupyter)):
        return ()
    if verbose == 2:
        return (PlainLines(print, epoch_seconds=0),)
    live = console.is_interactive and not console.is_jupyter
    return (LiveDisplay(console) if live else PlainLines(print),)
