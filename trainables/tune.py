"""The Ray Tune adapter: one trial is one attempt at a pack, one training iteration is one committed block.

A result carries only the path of a manifest and the steps reached; the storage holds the truth.
"""

from dataclasses import asdict
from typing import Any

from ray.tune import Trainable

from trainables.importing import without_collection


class PackTrainable(Trainable):
    """Trains a pack until every run has ended.

    The configuration is a dictionary with one entry, `assignment`: a `trainables.assignment.Assignment`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Import torch, load the images, restore the runs."""
        with without_collection():
            from trainables.worker import PackWorker

        self._worker = PackWorker(config["assignment"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switch to another pack in the same process, which has already imported torch."""
        self._worker.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one block and commit it; returns the fields of a `trainables.assignment.Report`."""
        report = self._worker.step()
        return asdict(report) | {"done": report.is_over}
