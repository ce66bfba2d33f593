"""The layout of a storage: all of its paths are defined here.

storage/
  ledger.json                       which ledger the storage belongs to
  sweeps/<sweep>.json               a sweep, as requested
  attempts/<n>.json                 an attempt, written by its driver
  attempts/<n>.stop                 asks the attempt to write its states and end
  attempts/<n>.keep                 asks the attempt to delete no states, since another one is about to begin
  attempts/<n>/block-<i>.json       the manifest of a block: its rename makes the block true
  attempts/<n>/block-<i>.slices     states
  attempts/<n>/block-<i>.kept       what is kept of runs that have ended
  drivers/<n>/                      a lease: one driver at a time, see `sweeper.ledger.lease`
  pruned/<n>.json                   which states were dropped
  plugins/<kind>/                   files of your own, see `plugin_store`
"""

from dataclasses import dataclass
from pathlib import Path

_NUMBER, _INDEX = "[0-9]" * 8, "[0-9]" * 6

STATES, KEPT = ".slices", ".kept"
"""Suffixes of the files beside a manifest."""


@dataclass(frozen=True)
class Layout:
    """The paths of one storage.

    Attributes:
        storage: Its folder.
    """

    storage: Path

    @property
    def marker(self) -> Path:
        """The file that says which ledger the storage belongs to."""
        return self.storage / "ledger.json"

    @property
    def sweeps(self) -> Path:
        """Folder of the records of sweeps."""
        return self.storage / "sweeps"

    @property
    def attempts(self) -> Path:
        """Folder of all attempts."""
        return self.storage / "attempts"

    @property
    def pruned(self) -> Path:
        """Folder of the records of states that were dropped."""
        return self.storage / "pruned"

    @property
    def plugins(self) -> Path:
        """Folder of the plug-ins in files of your own."""
        return self.storage / "plugins"

    @property
    def drivers(self) -> Path:
        """Folder of the leases."""
        return self.storage / "drivers"

    def lease(self, number: int) -> Path:
        """Folder of a lease."""
        return self.drivers / f"{number:08d}"

    def leases(self) -> list[Path]:
        """Folders of all leases, by number; those that are over end with `.over`."""
        return sorted(path for name in (_NUMBER, f"{_NUMBER}.over") for path in self.drivers.glob(name))

    def begun(self, lease: int, attempt: int) -> Path:
        """Record of the beginning of an attempt, in the folder of its driver's lease."""
        return self.lease(lease) / f"begun-{attempt:08d}.json"

    def begun_records(self) -> list[Path]:
        """Records of the beginnings of all attempts, by number."""
        return sorted(self.drivers.glob(f"*/begun-{_NUMBER}.json"), key=lambda path: path.name)

    def sweep_record(self, name: str) -> Path:
        """Record of a sweep, by its name in the ledger."""
        return self.sweeps / f"{name}.json"

    def sweep_records(self) -> list[Path]:
        """Records of all sweeps."""
        return sorted(self.sweeps.glob("*.json"))

    def attempt(self, number: int) -> Path:
        """Folder that the worker of an attempt writes in."""
        return self.attempts / f"{number:08d}"

    def attempt_record(self, number: int) -> Path:
        """Record of an attempt, beside its folder."""
        return self.attempts / f"{number:08d}.json"

    def attempt_records(self) -> list[Path]:
        """Records of all attempts, by number."""
        return sorted(self.attempts.glob("[0-9]*.json"))

    def newest_attempt(self) -> int:
        """The largest number of an attempt with a record or a folder, 0 if there is none."""
        return max((int(path.name[:8]) for path in self.attempts.glob(f"{_NUMBER}*")), default=0)

    def keep(self, number: int) -> Path:
        """The file whose existence asks an attempt to delete no states."""
        return self.attempts / f"{number:08d}.keep"

    def stop(self, number: int) -> Path:
        """The file whose existence asks an attempt to write its states and end."""
        return self.attempts / f"{number:08d}.stop"

    def stops(self) -> list[Path]:
        """All stop files."""
        return sorted(self.attempts.glob("*.stop"))

    def manifest(self, attempt: int, index: int) -> Path:
        """Path of the manifest of a block, which may not exist yet."""
        return self.attempt(attempt) / f"block-{index:06d}.json"

    def manifests(self, attempt: int | None = None) -> list[Path]:
        """Manifests of all committed blocks, or of one attempt's, by attempt and index."""
        folder = _NUMBER if attempt is None else f"{attempt:08d}"
        return sorted(self.attempts.glob(f"{folder}/block-{_INDEX}.json"), key=block_of)

    def states(self) -> list[Path]:
        """Files of states of all attempts."""
        return sorted(self.attempts.glob(f"{_NUMBER}/block-{_INDEX}{STATES}"))

    def pruned_record(self, number: int) -> Path:
        """Record of states that were dropped together."""
        return self.pruned / f"{number:08d}.json"

    def pruned_records(self) -> list[Path]:
        """All records of dropped states, by number."""
        return sorted(self.pruned.glob("[0-9]*.json"))


def block_of(path: Path) -> tuple[int, int]:
    """Attempt and index of a block, from the path of any of its files."""
    return int(path.parent.name), int(path.stem.removeprefix("block-"))
