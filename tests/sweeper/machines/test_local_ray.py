"""Where a Ray of this machine keeps its files, and what is said if it does not start."""

import sys
import tempfile
from pathlib import Path

import pytest

from sweeper.machines import local_ray


@pytest.mark.parametrize("length", [20, 200])
def test_ray_has_a_private_folder_whose_path_is_short(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Path(tempfile.gettempdir()) if length == 20 else tmp_path / ("x" * length)
    chosen.mkdir(exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(chosen))
    folder = local_ray._new_folder()
    try:
        assert len(str(folder)) <= local_ray.MAX_FOLDER_BYTES
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(chosen.iterdir()) or folder.parent == chosen
    finally:
        folder.rmdir()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "no reason was given"),
        (
            "import sys; print('Traceback\\nThe node timed out. See there.', file=sys.stderr)",
            r"\(The node timed out\)",
        ),
        ("import sys; print('[2026 E 9 9] a.h:2: No GCS. See there.', file=sys.stderr)", r"\(No GCS\)"),
    ],
)
def test_a_ray_that_does_not_start_is_a_fault_of_the_machine_in_its_last_words(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    with pytest.raises(OSError, match=f"Ray does not start on this machine.*{said}"), local_ray.started(1, 0):
        pass
    place.rmdir()  # empty
