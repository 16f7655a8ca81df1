"""For every test, doctest and page of the documentation."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def scratch(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctests and pages run in an empty directory, for they write files as a reader would."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
