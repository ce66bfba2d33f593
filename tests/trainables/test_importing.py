"""Imports without garbage collection, which is as before afterwards."""

import gc
import sys
import types

import pytest

from trainables.importing import without_collection


@pytest.fixture(autouse=True)
def _thaw() -> object:
    yield
    gc.unfreeze()


def test_what_is_imported_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_freeze_count()
    with without_collection():
        assert not gc.isenabled()
        monkeypatch.setitem(sys.modules, "new_library", types.ModuleType("new_library"))
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_where_nothing_is_imported_garbage_is_found_as_before() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), without_collection():
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
