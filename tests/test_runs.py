"""Runs: resumed to the same weights after SIGKILL, shared by two processes, and nonsense refused in one line."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from sdlearn.parts import load_clip
from sdlearn.tools import sources, train
from sdlearn.tools.runs import best_precision, fit, plain_attention
from sdlearn.unet import diffusion_loss, new_unet

HERE = Path(__file__).parent


def quiet(steps, losses):
    """No bar."""
    return steps


def noisy_batch(g: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Latents, steps, noise and text for the real U-Net: all of it noise."""
    latents, eps = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 4, 8, 8, generator=g)
    return latents, torch.randint(1000, (2,), generator=g), eps, torch.randn(2, 3, 128, generator=g)


def unet_run(checkpoint: Path | None, steps: int = 12, seed: int = 3, stop: int = 12, examples=noisy_batch) -> dict:
    """A short training of the real U-Net on noise, saved at every second step; its weights, by name."""
    torch.manual_seed(0)
    unet = new_unet()
    options = {"average": True, "warmup": 3, "checkpoint": checkpoint, "every": 2}
    options |= {"progress": lambda steps, losses: islice(steps, stop)}
    fit(unet, diffusion_loss, examples, steps, lr=1e-3, seed=seed, **options)
    return unet.state_dict()


def test_every_weight_of_the_unet_learns():
    torch.manual_seed(0)
    unet = new_unet()
    before = {name: x.clone() for name, x in unet.state_dict().items()}
    fit(unet, diffusion_loss, noisy_batch, 2, lr=1e-3, warmup=0, precision="bf16", progress=quiet)
    assert [name for name, x in unet.state_dict().items() if torch.equal(x, before[name])] == []


def test_plain_attention_is_attention_and_leaves_the_setting_as_it_was():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 32, dtype=torch.bfloat16) for _ in range(3))
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    before, usual = allowed(), torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    with plain_attention():
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert plain.dtype == torch.bfloat16
    torch.testing.assert_close(plain.float(), usual, atol=0.02, rtol=0)  # numbers up to 2, with 8 bits each
    with pytest.raises(KeyboardInterrupt), plain_attention():
        raise KeyboardInterrupt
    assert allowed() == before


@pytest.mark.parametrize(("units", "precision"), [(True, "bf16"), (False, "no")])
def test_half_the_bits_only_where_the_processor_has_units_for_them(monkeypatch, units, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    assert best_precision() == precision


def wait_for(done, process):
    """Until something is true; fail when the process ends before."""
    while not done():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_weights_of_one_that_was_not(tmp_path):
    checkpoint = tmp_path / "unet.pt"
    command = [
        sys.executable,
        "-c",
        f"import test_runs, pathlib; test_runs.unet_run(pathlib.Path({str(checkpoint)!r}))",
    ]
    written = 0
    for _ in range(2):  # killed right after a checkpoint, or while the next one is being written
        process = subprocess.Popen(command, cwd=HERE)
        wait_for(lambda before=written: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        written = checkpoint.stat().st_mtime_ns
    assert len(torch.load(checkpoint)["losses"]) < 12, "killed too late to prove anything"
    resumed, straight = unet_run(checkpoint), unet_run(None)
    for name in straight:
        torch.testing.assert_close(resumed[name], straight[name], rtol=0, atol=0, msg=name)


def test_dropout_strikes_out_the_same_after_a_stop(tmp_path):
    def run(checkpoint, stop=12):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))
        options = {"checkpoint": checkpoint, "every": 2, "progress": lambda steps, losses: islice(steps, stop)}
        return fit(
            model, lambda m, x: m(x).square().mean(), lambda g: (torch.randn(4, 8, generator=g),), 12, 1e-3, **options
        )

    checkpoint = tmp_path / "run.pt"
    run(checkpoint, stop=7)
    torch.rand(3)
    assert run(checkpoint) == run(None)


def in_two_processes(checkpoint: Path, call: str, *options: str) -> subprocess.CompletedProcess:
    """A call with a checkpoint under `torchrun`: each process has half of every batch."""
    script = checkpoint.with_suffix(".py")
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        f"import accelerate, pathlib, test_runs; test_runs.{call}(pathlib.Path({str(checkpoint)!r}))\n"
        "sys.stdout.write(f'{accelerate.PartialState().num_processes} processes\\n')\n"  # whole, whoever else writes
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun would set it, without its warning
    return subprocess.run([*launch, *options, str(script)], capture_output=True, text=True, env=one_thread)


@pytest.mark.slow
@pytest.mark.parametrize("begun", [0, 6], ids=["from the first step", "on from a checkpoint of one process"])
def test_two_processes_train_like_one(tmp_path, begun):
    unet_run(tmp_path / "one.pt")
    if begun:
        unet_run(tmp_path / "two.pt", stop=begun)
    done = in_two_processes(tmp_path / "two.pt", "unet_run")
    assert done.returncode == 0 and "2 processes" in done.stdout, done.stderr[-2000:]
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-4, atol=1e-5)
    assert two["settings"] == one["settings"] and two.keys() == one.keys()  # so that either opens the other's


def command_run(checkpoint: Path):
    """The command, on few scenes."""
    sources.TRAINING = 512
    train.main("clip", out=checkpoint.with_suffix(""), steps=2)


@pytest.mark.slow
def test_the_command_in_two_processes_saves_once(tmp_path):
    done = in_two_processes(tmp_path / "mine.pt", "command_run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("clip in ") == 1 and "2 processes" in done.stdout
    assert load_clip(tmp_path / "mine").num_parameters() > 1_000_000


def run_that_loses_a_process(checkpoint: Path):
    """Of two processes the second is killed after the checkpoint of step 4; what the first one says."""

    def killed(g):
        if os.environ["RANK"] == "1" and checkpoint.exists() and len(torch.load(checkpoint)["losses"]) >= 4:
            time.sleep(0.5)  # meanwhile the other begins to wait for this one
            os.kill(os.getpid(), signal.SIGKILL)
        return noisy_batch(g)

    try:
        unet_run(checkpoint, examples=killed)
    except OSError as error:  # as the command does
        print(f"said: {error}", file=sys.stderr)
        sys.exit(1)


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_the_others_stop_with_their_last_checkpoint(tmp_path):
    lonely = tmp_path / "two.pt"
    done = in_two_processes(lonely, "run_that_loses_a_process", "--monitor-interval=5")  # time for the other to speak
    assert done.returncode != 0
    assert re.search(r"said: another process of this training has gone \(.+\): go on with --resume", done.stderr)
    assert 4 <= len(torch.load(lonely)["losses"]) < 12
    unet_run(lonely)
    assert len(torch.load(lonely)["losses"]) == 12


def test_a_half_written_checkpoint_is_not_taken_for_a_whole_one(tmp_path):
    checkpoint = tmp_path / "unet.pt"
    unet_run(checkpoint, steps=2)
    before = checkpoint.read_bytes()
    (tmp_path / ".left-behind.part").write_bytes(before[:1000])
    unet_run(checkpoint, steps=2)
    assert checkpoint.read_bytes() == before


def linear_run(target: float = 0.5, lr: float = 0.05, batch: int = 32, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)

    def examples(g):
        x = torch.randn(batch, 4, generator=g)
        return x, x.sum(1, keepdim=True) * target

    losses = fit(model, lambda m, x, y: (m(x) - y).square().mean(), examples, 200, lr=lr, progress=quiet, **options)
    return model, losses


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    checkpoint = tmp_path / "line.pt"
    linear_run(checkpoint=checkpoint)
    state = torch.load(checkpoint)
    torch.save(state | {"losses": state["losses"][:-1]}, checkpoint)  # one step is still to come
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"loss nan, gradient nan at step 199: try a learning rate below"):
        linear_run(target=float("nan"), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_says_so_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    checkpoint = tmp_path / "line.pt"
    linear_run(checkpoint=checkpoint)
    state = torch.load(checkpoint)
    torch.save(state | {"losses": state["losses"][:-1]}, checkpoint)  # one step is still to come
    before = checkpoint.read_bytes()
    full = tmp_path / ".full.part"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: (os.open(full, os.O_WRONLY), str(full)))
    with pytest.raises(OSError, match="cannot write .*line.pt .*: make room, then go on with --resume"):
        linear_run(checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["line.pt"]


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    checkpoint = tmp_path / "line.pt"
    linear_run(checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(ValueError, match="line.pt is damaged: remove it"):
        linear_run(checkpoint=checkpoint)


def test_a_checkpoint_that_lacks_something_says_what_to_do(tmp_path):
    checkpoint = tmp_path / "line.pt"
    linear_run(checkpoint=checkpoint)
    state = torch.load(checkpoint)
    for lacking in ("settings", "optimizer"):
        torch.save({name: x for name, x in state.items() if name != lacking}, checkpoint)
        with pytest.raises(ValueError, match="line.pt is damaged: remove it"):
            linear_run(checkpoint=checkpoint)
    torch.save(state | {"model": {"weight": torch.zeros(7, 7)}}, checkpoint)
    with pytest.raises(ValueError, match="line.pt is damaged: remove it"):
        linear_run(checkpoint=checkpoint)


@pytest.mark.parametrize("other", [{"seed": 9}, {"batch": 16}, {"lr": 0.01}], ids=str)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
    checkpoint = tmp_path / "line.pt"
    linear_run(checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match="belongs to a run with .*: go on with the options of that run, or"):
        linear_run(checkpoint=checkpoint, **other)
    assert checkpoint.read_bytes() == before
