"""What every benchmark needs: a clock that takes turns, the machine's own matrix rate, and how much memory it takes."""

import statistics
import time
from collections.abc import Callable
from threading import Event, Thread

import psutil
import torch


def wait(device: torch.device | str) -> None:
    """A GPU works on after the call returns: the clock has to wait for it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def in_turn(
    runs: dict[str, Callable],  # what to time
    n: int,  # times each
    device: torch.device | str = "cpu",
) -> dict[str, float]:  # median seconds
    """Time several things alternately, so that a slow minute of the machine hits all of them alike."""
    times = {name: [] for name in runs}
    for run in runs.values():
        run()  # the first call of each is not counted
    for _ in range(n):
        for name, run in runs.items():
            wait(device)
            begin = time.perf_counter()
            run()
            wait(device)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


class Memory:
    """`with Memory() as memory:` how much more the process held, at most, than at the beginning: `most`, bytes."""

    def __enter__(self):
        self.process, self.done = psutil.Process(), Event()
        self.before, self.most = self.process.memory_info().rss, 0
        self.thread = Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss - self.before)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    size: int = 2048,  # of square matrices
) -> float:  # operations a second
    """The best rate that a plain matrix product reaches here: what nothing else can exceed by much."""
    a = torch.randn(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(12):
        wait(device)
        begin = time.perf_counter()
        a @ a
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def table(rows: list[list], heads: list[str]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
