"""What several test files need."""

import os
import shutil

import pytest
import torch
from lab import CHROMIUM, QUIET

from sdlearn import parts


@pytest.fixture(autouse=True)
def same_numbers():
    """A test that draws random tensors draws the same ones in every run."""
    torch.manual_seed(0)


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped model that a test may damage: every file a link, to be replaced, not written to."""
    return shutil.copytree(parts.MINI, tmp_path / "copy", copy_function=os.symlink)


@pytest.fixture(scope="module")
def browser():
    """A real browser, for tests that have made sure that there is one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
