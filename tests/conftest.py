"""What several test files need."""

import os
import shutil

import pytest

from sdlearn import parts


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped model that a test may damage: every file a link, to be replaced, not written to."""
    return shutil.copytree(parts.MINI, tmp_path / "copy", copy_function=os.symlink)
