"""The checkpoints of a run, side by side in a folder: `step-00000500`, `step-00001000`, ..."""

import logging
import pathlib
import re

from trainloop import checkpoint_file, durable

_LOG = logging.getLogger("trainloop")
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointFolder:
    """A folder of checkpoints. It need not exist before the first is written.

    Args:
        path: of the folder. Nothing else should be kept there.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def steps(self):
        """Steps of the checkpoints that are there, damaged ones included, in ascending order."""
        names = [found.name for found in self.path.glob("step-*")] if self.path.is_dir() else []
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def write(self, step, arrays, meta):
        """Write the checkpoint of a step.

        Raises:
            OSError: it cannot be written; those that were there still are.
        """
        checkpoint_file.write(self._of(step), arrays, meta)

    def newest(self):
        """The newest checkpoint that is not damaged, opened, or None if there is none.

        Damaged ones are named in a warning of the log.

        Raises:
            ValueError: a later version of this package has written it.
        """
        for step in reversed(self.steps()):
            try:
                return checkpoint_file.Saved(self._of(step))
            except checkpoint_file.DamagedCheckpointError as error:
                _LOG.warning("a damaged checkpoint is not used: %s", error)
        return None

    def prune(self, keep, best=None):
        """Remove all but the last `keep` checkpoints and the one of step `best`."""
        for step in self.steps()[:-keep]:
            if step != best:
                durable.remove_folder(self._of(step))

    def begin(self, step):
        """Make the folder one of a run that stands at a step: what is damaged or unfinished behind it is removed.

        Raises:
            ValueError: there is an intact checkpoint of a later step, so the folder belongs to another run; or it is a
                file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for checkpoints")
        durable.remove_unfinished(self.path)
        for later in [found for found in self.steps() if found > step]:
            try:
                checkpoint_file.Saved(self._of(later)).close()
            except checkpoint_file.DamagedCheckpointError:
                durable.remove_folder(self._of(later))
            else:
                raise ValueError(
                    f"{self.path} holds a checkpoint of step {later}, this run stands at step {step}; continue the run "
                    "it belongs to with loop.restore, or give another folder"
                )

    def _of(self, step):
        return self.path / f"step-{step:08d}"
