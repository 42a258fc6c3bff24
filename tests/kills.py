"""Kill trainings at random moments, and go on: do they end with the weights of one that was left alone?

`python kills.py [KILLS]`, in tests; part of `make fuzz`. One time in four a second training begins in the same
directory, and must be turned away.
"""

import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from safetensors.torch import load_file

from sdlearn.tools import runs, sources, train

STEPS, EVERY = 24, 3  # batches; batches between checkpoints
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def begin(out: Path, log: Path) -> int:  # process
    """Go on with a training in a process of its own."""
    process = os.fork()
    if process:
        return process
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    try:
        train.main("vae", out=out, steps=STEPS, batch=2, resume=True)
    except Exception as error:
        print(error, flush=True)
        os._exit(1)
    os._exit(0)


def ended(process: int) -> int:  # exit status; below 0: the signal
    """Wait for a process."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def interrupted(out: Path, log: Path, rng: random.Random, longest: float) -> int:  # how often it was killed
    """Kill a training again and again, until one ends before it is killed."""
    kills = 0
    while True:
        first = begin(out, log)
        time.sleep(rng.uniform(0, longest))
        if rng.random() < 0.25:
            beside = log.with_suffix(".second")
            second = begin(out, beside)
            time.sleep(rng.uniform(0, 1))
            assert ended(second) == 0 or "is training in" in beside.read_text(), beside.read_text()
        os.kill(first, signal.SIGKILL)
        if ended(first) == 0:
            return kills
        kills += 1


def check(out: Path, wanted: dict) -> None:
    """Nothing is lost, nothing is left behind, and the weights are those of a training that was left alone."""
    got = load_file(out / WEIGHTS)
    assert got.keys() == wanted.keys() and all(got[name].equal(wanted[name]) for name in wanted)
    left = {path.name for path in [*out.iterdir(), *(out / "checkpoints").iterdir()]}
    assert left == {"vae", "checkpoints", "data.json", "progress.png", ".training.lock"}, left


def main(kills: int = 200, seed: int = 0) -> None:
    """Kill at least this many trainings."""
    sources.TRAINING, runs.fit = 32, partial(runs.fit, every=EVERY)
    with tempfile.TemporaryDirectory() as folder:
        root, rng, done, models = Path(folder), random.Random(seed), 0, 0
        started = time.monotonic()
        assert ended(begin(root / "alone", root / "log")) == 0, (root / "log").read_text()
        longest, wanted = 1.1 * (time.monotonic() - started), load_file(root / "alone" / WEIGHTS)
        while done < kills:
            done, models = done + interrupted(root / str(models), root / "log", rng, longest), models + 1
            check(root / str(models - 1), wanted)
        print(f"{done} trainings killed, {models} models: the weights of one that was left alone, nothing left behind")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
