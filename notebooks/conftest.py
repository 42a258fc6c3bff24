"""nbval lets the cells after one that ran out of time fail without failing (xfail); here they fail like any other."""

import pytest


def fail_if_late(item: pytest.Item) -> None:
    if getattr(item.parent, "timed_out", False):
        pytest.fail("a cell of this notebook ran out of time", pytrace=False)


def pytest_runtest_setup(item):  # the cells after it
    fail_if_late(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):  # the cell itself, should it swallow the interrupt
    result = yield
    fail_if_late(item)
    return result
