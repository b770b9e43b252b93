"""What is left of a run: how it ended, its log, and its settings as they were resolved."""

import dataclasses
import signal

import numpy as np

from trainloop import files
from trainloop.comparison.folder import Run
from trainloop.hooks.metrics_file import RunLog, read_run_log
from trainloop.runs import user_code

COMPLETE, FAILED, UNFINISHED, NOT_BEGUN = "complete", "failed", "unfinished", "not begun"

# Of a process that was interrupted by Ctrl-C or SIGTERM, and saved before it ended, or had not begun.
INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is left of a run.

    Attributes:
        run: a `Run`.
        state: COMPLETE, FAILED, UNFINISHED or NOT_BEGUN.
        reason: of a failure, one line.
        log: a `RunLog`; empty where there is none. Where the data have no epochs each step counts as one, and its
            seconds are its share of the run's by evaluations, because no others are known.
        config: dict, config.json; empty where there is none.
    """

    run: Run
    state: str
    reason: str
    log: RunLog
    config: dict

    @property
    def changed_code(self):
        """The user's files that are not what they were when this run was begun."""
        before = self.config.get("code", {})
        here = user_code.digests(*(f"{source}:any" for source in before))
        return [source for source in before if here[source] != before[source]]

    @property
    def evaluations(self):
        """[steps]: how often the loss was evaluated until each step was done.

        With or without its gradient; products with a Hessian or Gauss-Newton matrix, and Jacobians, count as one each.
        """
        return _evaluations(self.log.history)

    @property
    def passes(self):
        """[steps]: the same in passes over the training set, so that batches of all sizes compare."""
        samples, count = self.log.history.get("samples", np.zeros(0)), self.config.get("training_samples", np.nan)
        return np.cumsum(np.diff(self.evaluations, prepend=0) * samples) / count

    @property
    def compilation(self):
        """[epochs]: seconds of each epoch that went into tracing and compiling, that of the validation included.

        The first epoch of a phase is compared with the median of its others; NaN where there are none. Zero elsewhere.
        """
        took = np.diff(self.log.epochs.get("seconds", np.zeros(0)), prepend=0.0)
        if self._has_no_epochs:
            return np.full(len(took), np.nan)
        history, found = self.log.history, np.zeros(len(took))
        phases = self.at_epochs(history["phase"]) if "phase" in history else found
        for phase in np.unique(phases):
            first, *others = np.flatnonzero(phases == phase)
            found[first] = max(0.0, took[first] - np.median(took[others])) if others else np.nan
        return found

    @property
    def training_seconds(self):
        """[epochs]: seconds until the end of each epoch without compilation, as far as that is known."""
        return self.log.epochs["seconds"] - np.nancumsum(self.compilation)

    @property
    def _has_no_epochs(self):
        return bool(self.config) and self.config.get("batch_size", 0) is None  # points of residuals

    def at_epochs(self, of_steps):
        """Values after the last step of each epoch, of values [steps]."""
        return of_steps[np.searchsorted(self.log.history["step"], self.log.epochs.get("step", np.zeros(0, int)))]


def read(run):
    """The `Outcome` of a run, also of one in progress."""
    log = read_run_log(run.metrics) if run.metrics.exists() else RunLog({}, {}, None, None)
    config = _json(run.folder / "config.json")
    if config and config.get("batch_size", 0) is None:  # points of residuals, which have no epochs
        log = _by_steps(log)
    ended = _json(run.exit)
    code = ended.get("code")
    if code is None or code in INTERRUPTED:
        state = UNFINISHED if config else NOT_BEGUN
    else:
        state = FAILED if code else COMPLETE
    return Outcome(run, state, ended.get("reason", "") if state == FAILED else "", log, config)


def _by_steps(log):
    """The same log with an epoch for every step."""
    if not log.history:
        return log
    work = _evaluations(log.history)
    seconds = (log.end or {}).get("seconds", np.nan) * work / work[-1]
    own = {name: log.history[name] for name in ("step", "loss")}
    return dataclasses.replace(log, epochs={"epoch": own["step"], "seconds": seconds, **own})


def _evaluations(history):
    names = [f"evaluations/{kind}" for kind in ("f", "Hv", "Gv", "J")]
    kinds = [history[name] for name in names if name in history]
    return np.sum(kinds, axis=0) if kinds else history.get("step", np.zeros(0, int))


def _json(path):
    if not path.exists():
        return {}
    try:
        return dict(files.read_json(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); put it back, or do the run again") from error
