"""Does it fit into memory: the computer's, or what a container may take."""

import psutil
import pytest
import torch

from sdlearn import parts
from sdlearn.tools import memory

CPU = torch.device("cpu")


def group(tmp_path, version, limit, used, cached=0):
    """What the system says of a container, in one of its two versions."""
    folder = tmp_path if version == 2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, number in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{number}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    return tmp_path


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(tmp_path, version):
    groups = group(tmp_path, version, 1_000_000, 400_000, 100_000)
    assert memory.free_memory(CPU, groups) == 700_000


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, 2**63 - 4096)])
def test_without_a_limit_the_computers_memory_counts(tmp_path, version, limit):
    groups = group(tmp_path, version, limit, 400_000)
    there = psutil.virtual_memory().available
    assert abs(memory.free_memory(CPU, groups) - there) < 0.2 * there


def test_outside_a_container_too(tmp_path):
    assert memory.limits(tmp_path) == []


def test_pictures_that_do_not_fit_are_refused(monkeypatch):
    model = parts.load("mini", "cpu")
    one = 4 * memory.MAPS * 32 * 64 * 64  # bytes: 32 channels at 64 x 64
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * one)
    memory.check_pictures(model, 10)
    with pytest.raises(MemoryError, match="11 pictures at once need about 0.0346 GB, 0.0315 are free: draw fewer"):
        memory.check_pictures(model, 11)


def test_a_batch_of_larger_pictures_needs_more(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 100 * memory.EXAMPLE["vae"])
    memory.check_batch("vae", 100, 64, CPU)
    for batch, size in ((101, 64), (45, 96)):
        with pytest.raises(MemoryError, match=rf"--batch {batch} needs about"):
            memory.check_batch("vae", batch, size, CPU)
