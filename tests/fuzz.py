"""Throw at the commands and checks what they might meet: damaged models, odd options, hostile answers. `make fuzz`.

Each case either works, or ends in one line. None may end in a traceback, take over a minute, draw a black picture
with exit status 0, or change a file of the user's. The same seed gives the same cases.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import test_checks
from fastcore.script import CliError
from PIL import Image

from sdlearn import parts
from sdlearn.tools import draw, measure, sources, train

LONGEST = 60  # seconds for a case
NUMBERS = (0, -1, 1, 2, 3, 7, 999, 1001, 2**31, 2**32, 2**63, 10**30)
REALS = (0.0, -1.0, 1.0, 0.5, 4.0, 1e9, -1e308, float("nan"), float("inf"))
TEXTS = (
    "a cat riding a horse", "", " ", "a" * 5000, "a cat " * 500, "$x^2$ \\frac{1}{0}", "<b>a cat</b>", "\x1b[2J\x07",
    "\ud800", "\x00", "一匹马", "👩‍🚀🐎", "../../etc/passwd", "'; rm -rf nothing; '", "{0} %s {}", "--help", "\n",
)  # fmt: skip
NAMES = (
    "p.png",
    "p.jpg",
    "p.gif",
    "p",
    "p.exe",
    "no/where.png",
    "x" * 300 + ".png",
    ".png",
    "kept.png",
    "kept",
    "a b.webp",
)
SETTINGS = (None, True, 0, -1, 1, 3, 1e400, float("nan"), "", "x", [], [1], {}, 10**6, 10**18, [0] * 1000, "\u0000")


# ---------------------------------------------------------------- what is thrown


def damaged(rng: random.Random, root: Path) -> Path:
    """A copy of the shipped model with one or two of its files damaged."""
    model = shutil.copytree(parts.MINI, root / "model", copy_function=os.symlink)
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice([path for path in sorted(model.rglob("*")) if path.is_file()])
        content = file.read_bytes()
        file.unlink()
        if file.suffix == ".json" and rng.random() < 0.7:
            file.write_text(json.dumps(odd_settings(rng, json.loads(content))))
        elif rng.random() < 0.9:
            file.write_bytes(odd_bytes(rng, content))
    return model


def odd_settings(rng: random.Random, settings):
    """Settings of which one is gone, new, or has another value."""
    if not isinstance(settings, dict) or not settings:
        return rng.choice(SETTINGS)
    name = rng.choice(sorted(settings))
    changed = dict(settings)
    how = rng.random()
    if how < 0.2:
        del changed[name]
    elif how < 0.3:
        changed["surprise"] = rng.choice(SETTINGS)
    elif isinstance(settings[name], dict):
        changed[name] = odd_settings(rng, settings[name])
    else:
        changed[name] = rng.choice(SETTINGS)
    return changed


def odd_bytes(rng: random.Random, content: bytes) -> bytes:
    """A file cut short, with flipped bits, or something else altogether."""
    how = rng.random()
    if how < 0.3:
        return content[: rng.randrange(len(content) + 1)]
    if how < 0.8:
        flipped = bytearray(content)
        for _ in range(rng.choice((1, 3, 100))):
            flipped[rng.randrange(min(len(flipped), rng.choice((64, 4096, 10**9))))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return rng.choice((b"", b"\0" * len(content), b"version https://git-lfs.github.com/spec/v1\n", b"{", b"[[" * 9999))


def odd_folder(rng: random.Random, root: Path) -> Path:
    """A folder of captioned pictures, most of them sound."""
    folder = root / "data"
    folder.mkdir()
    rows = []
    for i in range(rng.choice((0, 3, 12, 20))):
        name = rng.choice((f"{i}.png", f"{i}.jpg", f"in/{i}.png"))
        (folder / name).parent.mkdir(exist_ok=True)
        size = rng.choice(((64, 64), (1, 1), (300, 20), (20, 300)))
        Image.new(rng.choice(("RGB", "L")), size, rng.randrange(256)).save(folder / name)
        if rng.random() < 0.2:
            (folder / name).write_bytes(odd_bytes(rng, (folder / name).read_bytes()))
        rows.append({"file_name": rng.choice((name, name, name, "gone.png", "../x.png")), "text": rng.choice(TEXTS)})
    lines = "\n".join(map(json.dumps, rows))
    if rng.random() < 0.9:
        (folder / "metadata.jsonl").write_text(lines)
    if rng.random() < 0.1:
        (folder / "metadata.csv").write_text("file_name,text\n0.png,x\n")
    return folder


# ---------------------------------------------------------------- the cases


def draw_damaged(rng: random.Random, root: Path) -> None:
    out = root / "p.png"
    draw.main("a cat riding a horse", model=str(damaged(rng, root)), steps=2, out=out)
    assert np.array(Image.open(out)).std() > 1, "a black picture"


def draw_oddly(rng: random.Random, root: Path) -> None:
    options = {
        "negative": lambda: rng.choice(TEXTS),
        "n": lambda: rng.choice(NUMBERS),
        "seed": lambda: rng.choice(NUMBERS),
        "guidance": lambda: rng.choice(REALS),
        "scheduler": lambda: rng.choice((*parts.SCHEDULERS, "magic", "")),
        "grid": lambda: rng.choice(
            ("seed=0,1", "steps=1,0", "guidance=", "seed", "magic=1", "n=1,2", "scheduler=lms,x")
        ),
        "film": lambda: root / rng.choice(NAMES),
        "out": lambda: root / rng.choice(NAMES),
        "model": lambda: rng.choice(("mini", "nobody", "runs/x", "a/b/c", "", str(root / "kept"), str(root))),
    }
    chosen = {name: options[name]() for name in rng.sample(sorted(options), rng.randrange(4))}
    steps = rng.choice((1, 2, 2, 3, *NUMBERS)) if rng.random() < 0.5 else 2
    if chosen.get("n", 1) in range(8, 2000):
        chosen["n"] = 8
    draw.main(
        rng.choice(TEXTS), **{"out": root / "p.png", "steps": min(steps, 1001) if steps < 2**31 else steps} | chosen
    )


def train_oddly(rng: random.Random, root: Path) -> None:
    options = {
        "steps": lambda: rng.choice((1, 1, *NUMBERS[:3], 10**30)),
        "batch": lambda: rng.choice((2, 3, 0, 1, -1, 10**12)),
        "seed": lambda: rng.choice(NUMBERS),
        "precision": lambda: rng.choice(("no", "bf16", "fp8", "")),
        "resume": lambda: True,
        "data": lambda: odd_folder(rng, root),
        "size": lambda: rng.choice((64, 96, 128, 65, 0, -1)),
        "pad": lambda: rng.choice(("white", "#fff", "magic", "")),
        "mirror": lambda: True,
        "held_out": lambda: rng.choice(("0", "0.5", "1", "nan", "x", str(root / "kept"))),
        "out": lambda: root / rng.choice(("mine", "kept", "kept.png", "no/where", "x" * 300)),
    }
    chosen = {name: options[name]() for name in rng.sample(sorted(options), rng.randrange(5))}
    train.main(
        rng.choice(("vae", "clip", "judge", "all", "unet", "gan", "")),
        **{"steps": 1, "out": root / "mine", "batch": 2} | chosen,
    )


def measure_damaged(rng: random.Random, root: Path) -> None:
    model = str(damaged(rng, root)) if rng.random() < 0.7 else rng.choice(("mini", "nobody", str(root)))
    odd = rng.random() < 0.3
    options = (
        {"n": rng.choice(NUMBERS[:5]), "steps": rng.choice(NUMBERS[:5]), "guidance": rng.choice(REALS)} if odd else {}
    )
    measure.main(**{"model": model, "n": 2, "steps": 1, "json": root / rng.choice(NAMES)} | options)


def answer(rng: random.Random, root: Path) -> None:
    number, kind = rng.choice(test_checks.NUMBERS), rng.choice(sorted(test_checks.WRONG))
    check, learners = test_checks.solved(number)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        check(*map(test_checks.answering(test_checks.WRONG[kind]), learners))
    assert said.getvalue().startswith(f"{number} ") and said.getvalue().count("\n") == 1, (
        number,
        kind,
        said.getvalue(),
    )


KINDS = (draw_damaged, draw_damaged, draw_damaged, draw_oddly, draw_oddly, train_oddly, measure_damaged, answer, answer)


# ---------------------------------------------------------------- what must not happen


def user_files(root: Path) -> dict[str, bytes]:
    """Files that were there before, and must be there afterwards."""
    return {name: (root / name).read_bytes() for name in ("kept", "kept.png")}


def outcome(case, rng: random.Random, root: Path) -> str:  # "worked", "one line", or what is wrong
    """Run one case in a directory of its own."""
    (root / "kept").write_bytes(rng.randbytes(100))
    (root / "kept.png").write_bytes(rng.randbytes(100))
    (root / "kept.png").chmod(0o444)  # a picture of the user's, protected
    before = user_files(root)
    signal.alarm(LONGEST)
    try:
        case(rng, root)
        ended = "worked"
    except CliError as error:
        ended = "one line" if str(error).isprintable() and 0 < len(str(error)) < 2000 else f"no line: {error!r}"
    except (Exception, SystemExit) as error:
        ended = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    after = user_files(root)
    if case in (draw_oddly, measure_damaged):  # these may be told to write to "kept"
        before["kept"] = after["kept"]
    return ended if after == before else "a file is lost"


def too_long(*_):
    raise TimeoutError(f"more than {LONGEST} s")


def main(cases: int = 1000, seed: int = 0, minutes: int = 30) -> None:
    """Run the cases, for so many minutes at most, and say what became of them."""
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("ignore")
    sources.TRAINING = 32
    counts, bad, until = Counter(), [], time.monotonic() + 60 * minutes
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        case = rng.choice(KINDS)
        quiet = io.StringIO()
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(quiet),
            contextlib.redirect_stdout(quiet),
        ):
            ended = outcome(case, rng, Path(folder))
        counts[case.__name__, ended if ended in ("worked", "one line") else "BAD"] += 1
        if ended not in ("worked", "one line"):
            bad.append(number)
            print(f"case {number}, {case.__name__}: {ended[:300]}", flush=True)
        if time.monotonic() > until:
            print(f"stopped after {minutes} minutes")
            break
    for (name, ended), count in sorted(counts.items()):
        print(f"{name:16} {ended:9} {count}")
    print(f"{sum(counts.values())} cases, {len(bad)} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
