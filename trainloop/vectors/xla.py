"""Whether code is being traced for XLA: a few operations are fast in one form there and in another everywhere else."""

import contextlib
import contextvars

_TRACING = contextvars.ContextVar("tracing for XLA", default=False)


@contextlib.contextmanager
def tracing():
    """What is traced inside is going to be compiled by XLA."""
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)


def is_tracing():
    """True inside of `tracing`."""
    return _TRACING.get()
