"""The training loop of lesson 1: it finds what made the data, repeats itself for a seed, and leaves a model ready."""

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch.testing import assert_close

from sdlearn.training import fit, learning_rate


def line_batch(g):
    x = torch.randn(32, 4, generator=g)
    return x, x.sum(1, keepdim=True) * 0.5


def squared(model, x, y):
    return (model(x) - y).square().mean()


def line_run(loss=squared, examples=line_batch, steps=200, lr=0.05, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    return model, fit(model, loss, examples, steps, lr, **options)


def test_fit_finds_the_line_that_made_the_data():
    model, losses = line_run()
    assert_close(model.weight.data, torch.full((1, 4), 0.5), atol=1e-3, rtol=0)
    assert losses[-1] < 1e-4 < losses[0] and len(losses) == 200


def test_the_seed_decides_the_batches():
    assert line_run(seed=1)[1] == line_run(seed=1)[1] != line_run(seed=2)[1]


def test_the_learning_rate_rises_to_its_highest_and_falls_along_a_cosine():
    rates = [learning_rate(step, 100, 9) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] and rates[-1] < 0.001
    library = get_cosine_schedule_with_warmup(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.0), 0, 100)
    assert rates[10:] == pytest.approx([library.lr_lambdas[0](step) for step in range(10, 100)])


def test_a_step_is_the_librarys():
    """Loss, backward, clip, step: written out once more with torch's own scheduler, the weights are the same."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, 20, 3))
    for step in range(20):
        squared(model, *line_batch(torch.manual_seed(step))).mul(100).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    ours, _ = line_run(lambda *given: 100 * squared(*given), steps=20, warmup=3, weight_decay=0.1)
    assert_close(ours.state_dict(), model.state_dict())


def test_the_average_trails_behind_the_weights():
    last, _ = line_run(steps=30)
    mean, _ = line_run(steps=30, average=True)
    start, goal = torch.nn.Linear(4, 1).weight, torch.full((1, 4), 0.5)
    assert (last.weight - mean.weight).abs().max() > 1e-3
    assert (last.weight - goal).norm() < (mean.weight - goal).norm() < (start - goal).norm()


def test_a_run_goes_on_where_it_is_told_to_begin_and_says_what_it_did():
    seen = []
    _, losses = line_run(steps=5, begin=lambda optimizer, ema: [9.0, 8.0], after=lambda found: seen.append(len(found)))
    assert losses[:2] == [9.0, 8.0] and seen == [3, 4, 5]
    assert losses[2] == pytest.approx(line_run(steps=5, begin=lambda *_: [0.0, 0.0])[1][2])


def test_a_loss_that_is_not_a_number_moves_nothing():
    torch.manual_seed(0)
    before = torch.nn.Linear(4, 1).state_dict()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    with pytest.raises(ValueError, match=r"loss nan, gradient nan at step 0: try a learning rate below 0.05"):
        fit(model, lambda *given: squared(*given) * float("nan"), line_batch, 10, 0.05)
    assert_close(model.state_dict(), before)


def test_a_gradient_that_is_not_a_number_moves_nothing_either():
    """The loss is 0, and the slope of its root is not a number there."""
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    with pytest.raises(ValueError, match=r"loss 0, gradient nan at step 0: try a learning rate below"):
        fit(model, lambda model, x, y: model(0 * x).square().sum().sqrt(), line_batch, 10, 0.05)
    assert torch.equal(model.weight, torch.zeros(1, 4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_a_stop_a_model_is_ready_to_use(error):
    model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Dropout(0.5))

    def stop(losses):
        assert model.training
        raise error

    with pytest.raises(error):
        fit(model, squared, line_batch, 10, 0.05, after=stop)
    assert not model.training
