"""Lesson 7: a word, a LoRA, a prior: equal to the libraries', exact at the ends, and learnt from a few pictures."""

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import CLIPTextConfig, CLIPTextModel

from sdlearn.new_words import LoRA, WithWord, lora, new_lora, new_vector, prior_loss, put_lora, take_lora, train_word
from sdlearn.notebook.checks import new_words as checks
from sdlearn.unet import new_unet

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
WORDS, LENGTH, WIDTH = 12, 6, 32  # the last of the words is the new one


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return new_unet(text_width=WIDTH, widths=(16, 32)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(1)
    size = dict(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=32, max_position_embeddings=LENGTH)
    layers = dict(num_hidden_layers=1, num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    return CLIPTextModel(CLIPTextConfig(**size, **layers)).eval().requires_grad_(False)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predicted(unet):
    with torch.no_grad():
        return unet(draw(2, 4, 8, 8), torch.tensor([300, 700]), encoder_hidden_states=draw(2, LENGTH, WIDTH)).sample


def random_lora(unet, seed=0, rank=3):
    """A LoRA that changes something."""
    g = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(x.shape, generator=g) for name, x in new_lora(unet, rank).items()}


def lesson(n=4):
    """Latents, and captions of which the first half names the new word."""
    tokens = torch.tensor([[0, 5, WORDS - 1, 3, 1, 1], [0, 4, 6, 3, 1, 1]]).repeat_interleave(n // 2, 0)
    return draw(n, 4, 8, 8, seed=2), tokens, tokens[:, 2] != WORDS - 1


# ---------------------------------------------------------------- the word


def test_a_vector_starts_at_the_mean_as_far_away_as_the_others():
    table, like = draw(30, 400), torch.tensor([3, 9, 27])
    assert_close(new_vector(table, like, torch.zeros(400)), table[like].mean(0))
    gap = new_vector(table, like, draw(400, seed=1)) - table[like].mean(0)
    assert_close(gap.norm(), table[like].std(0).norm(), rtol=0.15, atol=0)


def test_beside_one_word_a_vector_starts_on_it():
    """Textual inversion's own case: there is no standard deviation, so nothing is added."""
    table = draw(30, 8)
    assert torch.equal(new_vector(table, torch.tensor([3]), draw(8, seed=1)), table[3])


def test_beside_several_words_the_standard_deviation_is_torchs_own():
    table, like, eps = draw(30, 8), torch.tensor([3, 9]), draw(8, seed=1)
    assert torch.equal(new_vector(table, like, eps), table[like].mean(0) + table[like].std(0) * eps)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"eps must have shape \(8,\); got \(1, 8\)"):
        new_vector(draw(30, 8), torch.tensor([3, 9]), draw(1, 8))


def test_the_vector_stands_for_the_last_row(unet, text_encoder):
    x_t, tokens, _ = lesson()
    vector, t = draw(WIDTH, seed=3), torch.full((4,), 500)
    own = copy.deepcopy(text_encoder)
    own.get_input_embeddings().weight.data[-1] = vector
    want = unet(x_t, t, encoder_hidden_states=own(tokens).last_hidden_state).sample
    assert_close(WithWord(text_encoder, unet, vector)(x_t, t, tokens), want)


def test_other_captions_do_not_notice_the_word(unet, text_encoder):
    x_t, tokens, old = lesson()
    one, two = (
        WithWord(text_encoder, unet, draw(WIDTH, seed=seed))(x_t, torch.full((4,), 500), tokens) for seed in (1, 2)
    )
    assert torch.equal(one[old], two[old]) and (one[~old] - two[~old]).abs().min(0).values.max() > 0


def test_the_gradient_reaches_the_vector_alone(unet, text_encoder):
    x_t, tokens, _ = lesson()
    student = WithWord(text_encoder, unet, draw(WIDTH))
    student(x_t, torch.full((4,), 500), tokens).square().mean().backward()
    assert [name for name, p in student.named_parameters() if p.grad is not None] == ["vector"]
    assert student.vector.grad.abs().max() > 0


# ---------------------------------------------------------------- the loss and the training


def test_prior_loss_without_old_pictures_is_the_mean_squared_error():
    pred, eps = draw(2, 5, 4, 8, 8)
    assert_close(prior_loss(pred, eps, torch.zeros(5, dtype=torch.bool)), (pred - eps).square().mean())


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_prior_loss_is_two_means(weight):
    pred, eps = draw(2, 5, 4, 8, 8)
    new, old = ((pred[i] - eps[i]).square().mean() for i in (slice(0, 2), slice(2, 5)))
    which = torch.tensor([False, False, True, True, True])
    assert_close(prior_loss(pred, eps, which, weight), new + weight * old)


def test_prior_loss_wants_one_mark_per_picture():
    pred, eps = draw(2, 5, 4, 8, 8)
    with pytest.raises(ValueError, match="old must have shape"):
        prior_loss(pred, eps, torch.zeros(5, 1, dtype=torch.bool))


@pytest.mark.parametrize("old", [torch.tensor([0, 0, 0, 1, 1]), torch.zeros(5), torch.zeros(4).bool(), [True] * 5])
def test_prior_loss_wants_marks_that_are_true_or_false(old):
    with pytest.raises(ValueError, match=r"old must have shape \(5,\) and dtype bool; got "):
        prior_loss(*draw(2, 5, 4, 8, 8), old)


@pytest.mark.parametrize("marks", [torch.tensor([0, 0, 1, 1]), torch.ones(4, dtype=torch.bool)])
def test_a_word_is_not_learnt_without_new_pictures_or_from_marks_that_are_numbers(unet, text_encoder, marks):
    latents, tokens, _ = lesson()
    student = WithWord(text_encoder, unet, draw(WIDTH))
    with pytest.raises(ValueError, match="old must have dtype bool, and be False for one picture at least"):
        train_word(student, latents, tokens, marks, lr=1e-3, steps=1, loss=lambda pred, *_: pred.mean())


@pytest.mark.parametrize("way", ["vector", "lora", "all"])
def test_each_way_learns_and_changes_only_what_it_may(unet, text_encoder, way):
    own = put_lora(unet, new_lora(unet)) if way == "lora" else copy.deepcopy(unet).requires_grad_(way == "all")
    student = WithWord(text_encoder, own, draw(WIDTH))
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    losses = train_word(student, *lesson(), lr=1e-2, steps=12, batch=2)
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert len(losses) == 12 and "vector" in changed and not any(name.startswith("text_encoder") for name in changed)
    kinds = {"vector": {"vector"}, "lora": {"A", "B", "vector"}}
    assert way == "all" or {name.rsplit(".", 1)[-1] for name in changed} == kinds[way]
    assert way != "all" or sum(losses[-4:]) < sum(losses[:4])


def test_a_batch_holds_as_many_old_pictures_as_new_ones(unet, text_encoder):
    seen = []

    class Watched(WithWord):
        def forward(self, x_t, t, tokens):
            seen.append((tokens[:, 2] == WORDS - 1).tolist())
            return super().forward(x_t, t, tokens)

    latents, tokens, old = lesson()
    for marks in (old, torch.zeros(4, dtype=torch.bool)):
        train_word(Watched(text_encoder, unet, draw(WIDTH)), latents, tokens, marks, lr=1e-3, steps=1, batch=3)
    assert seen[0] == [True] * 3 + [False] * 3 and len(seen[1]) == 3


# ---------------------------------------------------------------- LoRA


def test_lora_is_the_layer_with_another_weight():
    x, W, A, B = draw(2, 5, 7), draw(6, 7, seed=1), draw(3, 7, seed=2), draw(6, 3, seed=3)
    assert_close(lora(x @ W.T, x, A, B, 0.7), x @ (W + 0.7 * B @ A).T, rtol=1e-4, atol=1e-4)
    assert torch.equal(lora(x @ W.T, x, A, B, 0.0), x @ W.T)


def test_a_new_lora_changes_nothing_yet_and_is_small(unet):
    assert torch.equal(predicted(put_lora(unet, new_lora(unet))), predicted(unet))
    assert sum(x.numel() for x in new_lora(unet).values()) < 0.1 * sum(p.numel() for p in unet.parameters())


@pytest.mark.parametrize("alpha", [1, 3, 6])
def test_a_lora_equals_peft(unet, alpha):
    theirs = copy.deepcopy(unet)
    theirs.add_adapter(LoraConfig(r=3, lora_alpha=alpha, target_modules=PROJECTIONS))
    weights = random_lora(unet)
    assert {*get_peft_model_state_dict(theirs)} == {*weights}
    set_peft_model_state_dict(theirs, weights)
    assert_close(predicted(put_lora(unet, weights, alpha / 3)), predicted(theirs), rtol=1e-4, atol=1e-5)


def test_a_lora_goes_through_the_files_of_diffusers_and_back(unet, tmp_path):
    weights = random_lora(unet)
    StableDiffusionPipeline.save_lora_weights(tmp_path, take_lora(put_lora(unet, weights)))
    opened = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") for name in opened)
    assert_close(predicted(put_lora(unet, opened)), predicted(put_lora(unet, weights)))
    theirs = copy.deepcopy(unet)
    theirs.load_lora_adapter(opened, prefix="unet")
    assert_close(predicted(theirs), predicted(put_lora(unet, weights)), rtol=1e-4, atol=1e-5)


def test_what_is_put_is_taken(unet):
    weights = random_lora(unet)
    taken = take_lora(put_lora(unet, weights))
    assert {*taken} == {*weights} and all(torch.equal(taken[name], weights[name]) for name in weights)
    assert take_lora(unet) == {}


def test_two_loras_add_up_in_any_order(unet):
    one, two = random_lora(unet, 1), random_lora(unet, 2, rank=2)
    both = predicted(put_lora(put_lora(unet, one), two, 0.5))
    assert_close(both, predicted(put_lora(put_lora(unet, two, 0.5), one)), rtol=1e-4, atol=1e-5)
    assert_close(predicted(put_lora(put_lora(unet, one), one, -1)), predicted(unet), rtol=1e-4, atol=1e-5)


def test_merged_layers_do_the_same(unet):
    two = put_lora(put_lora(unet, random_lora(unet, 1)), random_lora(unet, 2), 0.5)
    merged = copy.deepcopy(two)
    for name, layer in two.named_modules():
        if isinstance(layer, LoRA) and not name.endswith(".layer"):
            merged.set_submodule(name, layer.merged())
    assert not any(isinstance(layer, LoRA) for layer in merged.modules())
    assert merged.state_dict().keys() == unet.state_dict().keys()
    assert_close(predicted(merged), predicted(two), rtol=1e-4, atol=1e-5)


def test_the_unet_that_is_given_stays_as_it_is(unet):
    before = copy.deepcopy(unet.state_dict())
    student = put_lora(unet, random_lora(unet))
    next(layer for layer in student.modules() if isinstance(layer, LoRA)).merged()
    assert unet.state_dict().keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in unet.state_dict().items())


def test_a_new_lora_fits_beside_one_that_is_there(unet):
    one = put_lora(unet, random_lora(unet))
    weights = new_lora(one, seed=7)
    assert all(torch.equal(x, weights[name]) for name, x in new_lora(unet, seed=7).items())
    assert torch.equal(predicted(put_lora(one, weights)), predicted(one))


def test_a_lora_of_a_wider_unet_is_refused(unet):
    with pytest.raises(ValueError, match=r"to_\w\S*\.lora_[AB]\.weight must have shape .*; got"):
        put_lora(unet, new_lora(new_unet(text_width=WIDTH, widths=(32, 64))))


@pytest.mark.parametrize("part, shape", [("A", (2, WIDTH + 1)), ("A", (WIDTH,)), ("B", (16, 3)), ("B", (17, 2))])
def test_a_lora_of_another_shape_is_refused(unet, part, shape):
    name = next(name for name in new_lora(unet) if name.endswith("attn2.to_k.lora_A.weight"))
    right = {x: new_lora(unet, 2)[x] for x in (name, name.replace("_A", "_B"))}
    put_lora(unet, right)
    with pytest.raises(ValueError, match=rf"attn2\.to_k\.lora_{part}\.weight must have shape"):
        put_lora(unet, right | {name.replace("_A", f"_{part}"): torch.zeros(shape)})


def test_a_lora_beside_a_convolution_is_refused(unet):
    weights = {"conv_in.lora_A.weight": torch.zeros(2, 4), "conv_in.lora_B.weight": torch.zeros(16, 2)}
    with pytest.raises(ValueError, match=r"wanted A and B for layers of this U-Net; got conv_in\.lora_A"):
        put_lora(unet, weights)


@pytest.mark.parametrize("spoil", ["half", "other names", "another model"])
def test_what_is_no_lora_of_this_unet_is_refused(unet, spoil):
    weights = random_lora(unet)
    if spoil == "half":
        weights.popitem()
    elif spoil == "other names":
        weights = {name.replace("lora_A", "lora_down"): x for name, x in weights.items()}
    else:
        weights = {f"far.{name}": x for name, x in weights.items()}
    with pytest.raises(ValueError, match="wanted A and B for layers of this U-Net"):
        put_lora(unet, weights)


# ---------------------------------------------------------------- the checks of the exercises


def said(capsys, check, answer):
    assert check(answer) is None
    return capsys.readouterr().out


def stub(*_):
    raise NotImplementedError


def join(A1, B1, scale1, A2, B2, scale2):
    return torch.cat([A1, A2]), torch.cat([scale1 * B1, scale2 * B2], 1)


def distances(drawn, training):
    return torch.cdist(drawn.flatten(1), training.flatten(1))


def ratio(drawn, training, k):
    near = distances(drawn, training).topk(k, largest=False).values
    return near[:, 0] / near.mean(1)


def near(pictures, limit):
    return distances(pictures, pictures) / pictures[0].numel() ** 0.5 < limit


def duplicates(pictures, limit):
    return near(pictures, limit).tril(-1).any(1)


def means(pred, eps, old):
    error = (pred - eps).square().flatten(1).mean(1)
    return error[~old].mean(), error[old].mean() if old.any() else error.new_zeros(())


SOLVED = [
    (checks.check_new_vector, new_vector, "7.1"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean(0) + t[k].std(0, correction=0) * e, "7.1"),
    (checks.check_lora, lora, "7.2"),
    (checks.check_lora, lambda y, x, A, B, s: y + x @ (s * B @ A).T, "7.2"),
    (checks.check_prior_loss, prior_loss, "7.3"),
    (checks.check_join, join, "7.4"),
    (
        checks.check_join,
        lambda A1, B1, s, A2, B2, u: (torch.cat([u * A2, s * A1]), torch.cat([B2, B1], 1)),
        "7.4",
    ),
    (checks.check_ratio, ratio, "7.5"),
    (checks.check_duplicates, duplicates, "7.6"),
]


@pytest.mark.parametrize("check, answer, number", SOLVED)
def test_checks_accept_the_solution_and_wait_for_one(capsys, check, answer, number):
    assert said(capsys, check, answer) == f"{number} ok\n"
    assert said(capsys, check, stub) == f"{number} not tried yet\n"


WRONG = [
    (checks.check_new_vector, lambda t, k, e: t[k].mean(0), "the mean alone"),
    (checks.check_new_vector, lambda t, k, e: t[k].std(0) * e, "the mean is missing"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean(0) + e, "too large"),
    (checks.check_new_vector, lambda t, k, e: t.mean(0) + t.std(0) * e, "not over the whole table"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean(0) + t.std(0) * e, "standard deviation too"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean(1) + t[k].std(1) * e, "axis 0"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean() + t[k].std() * e, "one mean and one standard deviation"),
    (checks.check_new_vector, lambda t, k, e: t[k].mean(0) + t[k].var(0) * e, "variance"),
    (checks.check_new_vector, lambda t, k, e: t[k], "wanted shape (5,)"),
    (checks.check_new_vector, lambda t, e, k: new_vector(t, k, e), "they come as (table, like, eps)"),
    (checks.check_lora, lambda y, x, A, B, s: s * x @ A.T @ B.T, "the LoRA alone"),
    (checks.check_lora, lambda y, x, A, B, s: y + x @ A.T @ B.T, "`scale` is not used"),
    (checks.check_lora, lambda y, x, A, B, s: s * (y + x @ A.T @ B.T), "the LoRA only"),
    (checks.check_lora, lambda y, x, A, B, s: y + s * x @ B.T @ A.T, "first A, then B"),
    (checks.check_lora, lambda y, x, A, B, s: y + s * x @ A @ B, "both matrices are turned"),
    (checks.check_lora, lambda y, x, A, B, s: y + s * x @ A @ B.T, "A is turned"),
    (checks.check_lora, lambda y, x, A, B, s: y + s * y @ A.T @ B.T, "input is x"),
    (checks.check_lora, lambda y, x, A, B, s: y.add_(s * x @ A.T @ B.T), "in place"),
    (checks.check_prior_loss, lambda p, e, o, w: sum(means(p, e, o)), "`weight` is not used"),
    (checks.check_prior_loss, lambda p, e, o, w: (p - e).square().mean(), "one mean over all"),
    (checks.check_prior_loss, lambda p, e, o, w: w * means(p, e, o)[0] + means(p, e, o)[1], "belongs to the old"),
    (checks.check_prior_loss, lambda p, e, o, w: prior_loss(p, e, ~o, w), "where `old` is True"),
    (checks.check_prior_loss, lambda p, e, o, w: means(p, e, o)[0], "the old pictures are missing"),
    (
        checks.check_prior_loss,
        lambda p, e, o, w: (p - e)[~o].square().mean() + w * (p - e)[o].square().mean(),
        "is NaN",
    ),
    (checks.check_join, lambda *_: None, "return"),
    (checks.check_join, lambda A1, B1, s, A2, B2, u: torch.cat([A1, A2]), "wanted two tensors"),
    (checks.check_join, lambda A1, B1, s, A2, B2, u: (B1 @ A1 * s + B2 @ A2 * u, torch.eye(4)), "the ranks add up"),
    (checks.check_join, lambda A1, B1, s, A2, B2, u: join(A1, B1, 1, A2, B2, 1), "the scales are missing"),
    (checks.check_join, lambda A1, B1, s, A2, B2, u: join(s * A1, B1, s, u * A2, B2, u), "counts twice"),
    (checks.check_join, lambda A1, B1, s, A2, B2, u: join(A1, B1, u, A2, B2, s), "have changed places"),
    (checks.check_ratio, lambda d, t, k: distances(d, t).min(1).values, "divide it by"),
    (checks.check_ratio, lambda d, t, k: ratio(d, t, len(t)), "not over all"),
    (checks.check_ratio, lambda d, t, k: 1 / ratio(d, t, k), "upside down"),
    (checks.check_ratio, lambda d, t, k: ratio(t, d, k), "they come as (drawn, training, k)"),
    (checks.check_duplicates, lambda p, limit: near(p, limit).any(1), "near to itself"),
    (checks.check_duplicates, lambda p, limit: near(p, limit).sum(1) > 1, "the first of several"),
    (checks.check_duplicates, lambda p, limit: near(p, limit).triu(1).any(1), "keeps the last"),
    (checks.check_duplicates, lambda p, limit: ~duplicates(p, limit), "those that are to go"),
    (checks.check_duplicates, lambda p, limit: (distances(p, p) < limit).tril(-1).any(1), "all are False"),
]


@pytest.mark.parametrize("check, answer, hint", WRONG)
def test_checks_help(capsys, check, answer, hint):
    out = said(capsys, check, answer)
    assert hint in out and " ok" not in out and out.count("\n") == 1
