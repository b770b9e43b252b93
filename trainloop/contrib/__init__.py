"""Optimizers under lighter rules: they pass the conformance suite and one test of their own.

    tl.contrib.Rprop()

Names may change from release to release. An optimizer that is used and measured beside the others moves to
`trainloop.algorithms`, and keeps its name there.
"""

from trainloop.contrib.rprop import Rprop

__all__ = ["Rprop"]
