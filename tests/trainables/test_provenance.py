"""The commit in a block's provenance is that of the code, or nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with one commit, in whose place the code seems to run."""
    code = tmp_path / "trainables" / "provenance.py"
    code.parent.mkdir()
    code.write_text("")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(code))
    provenance.git_commit.cache_clear()
    yield code
    provenance.git_commit.cache_clear()


def test_the_commit_is_named_and_whether_files_were_changed(checkout: Path) -> None:
    commit = provenance.git_commit()
    head = ["git", "-C", str(checkout.parent), "rev-parse", "HEAD"]
    assert commit == subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    checkout.write_text("changed")
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() == f"{commit}-dirty"


def test_installed_code_has_no_commit_even_inside_another_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout.parent / "site-packages" / "trainables" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(inside))
    assert provenance.git_commit() == ""


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() == ""
    assert provenance.provenance("eager")["launch"] == "eager"
