"""The Ray Tune adapter: one trial is one attempt at a pack, one training iteration is one committed block.

A result carries the path of a manifest and how far it goes; what is true is in the storage.
"""

from dataclasses import asdict
from typing import Any

from ray.tune import Trainable


class PackTrainable(Trainable):
    """Works on a pack until every run has ended.

    The configuration is a dictionary with one entry, `assignment`: a `trainables.assignment.Assignment`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Import torch, load the images, restore the runs."""
        from trainables.worker import PackWorker

        self._worker = PackWorker(config["assignment"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process, which has imported torch already."""
        self._worker.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Work one block and commit it; returns the fields of a `trainables.assignment.Report`."""
        report = self._worker.step()
        return asdict(report) | {"done": report.is_over}
