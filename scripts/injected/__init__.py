"""Faults, each a function of an empty folder that raises unless what it does is survived as it expects."""

FAULTS = {}


def fault(function):
    """Register a function under its name."""
    FAULTS[function.__name__] = function
    return function


def each(cases):
    """Register a function (folder, case) once for every case of a dict, under the names of both."""

    def register(function):
        for name, case in cases.items():
            FAULTS[f"{function.__name__}_{name}"] = lambda folder, case=case: function(folder, case)
        return function

    return register
