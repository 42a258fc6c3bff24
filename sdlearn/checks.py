"""One check for each exercise: it tries the learner's function and says ok, or one line that helps.

A stub that still raises NotImplementedError gets "not tried yet". An error of the learner's own
keeps its traceback. A check returns None and changes nothing.
"""

import platform
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from torch import Tensor

from sdlearn import noising, parts


def verdict(
    exercise: str,  # its number, "3.2"
    hints: Callable[[], Iterable[str | None]],  # runs the learner's code; yields a hint for a mistake, None where right
) -> None:
    """Print what became of an exercise: the first hint, or ok."""
    try:
        hint = next((hint for hint in hints() if hint), None)
    except NotImplementedError:
        print(f"{exercise} not tried yet")
        return
    print(f"{exercise} {hint or 'ok'}")


def compare(
    got,  # what the learner's function returned
    want: Tensor,  # the right answer
    wrong: dict[str, Tensor] | None = None,  # hint -> what the typical mistake returns
    atol: float = 1e-5,
) -> str | None:  # a hint, or None where it is right
    """Say how an answer differs from the right one: nothing, shape, a known mistake, or just the numbers."""
    if got is None:
        return "your function returns nothing: is there a `return` at its end?"
    if not isinstance(got, Tensor):
        return f"wanted a tensor; got {type(got).__name__}"
    if got.shape != want.shape:
        return f"wanted shape {tuple(want.shape)}; got {tuple(got.shape)}"
    if torch.allclose(got.float(), want.float(), atol=atol):
        return None
    for hint, mistake in (wrong or {}).items():
        if mistake.shape == got.shape and torch.allclose(got.float(), mistake.float(), atol=atol):
            return hint
    return f"right shape, wrong numbers: the largest difference is {(got.float() - want.float()).abs().max():.3g}"


# ==== lesson 0: start here

IMPORTED_AS = {"pillow": "PIL"}  # packages whose module has another name


def check_environment() -> None:
    """Say, line by line, whether what the course needs is here: OK, or what to do."""
    remedies = 0
    for what, remedy in environment():
        remedies += bool(remedy)
        print(f"TO DO  {what}: {remedy}" if remedy else f"OK     {what}")
    print("All is ready." if not remedies else f"{remedies} to do, then restart the kernel and run this cell again.")


def environment() -> Iterable[tuple[str, str]]:  # what is needed; what to do about it, "" where all is well
    """Look at Python, each package on the one list in pyproject.toml, the shipped model and the device."""
    here, wanted = platform.python_version(), metadata("sdlearn")["Requires-Python"]
    yield f"Python {here}", "" if SpecifierSet(wanted).contains(here, True) else f"the course needs Python {wanted}"
    yield from map(package, map(Requirement, requires("sdlearn")))
    try:
        parts.load("mini", "cpu"), parts.load_clip()
        yield "the shipped model", ""
    except (FileNotFoundError, ValueError) as error:
        yield "the shipped model", str(error)
    yield f"device: {parts.best_device().type} (a CPU is enough)", ""


def package(
    need: Requirement,  # name and lowest version
) -> tuple[str, str]:  # as in `environment`
    """Is a package there, new enough, and can it be imported?"""
    remedy = f'run `pip install "{need}"`'
    try:
        here = version(need.name)
        import_module(IMPORTED_AS.get(need.name, need.name))
    except PackageNotFoundError:
        return need.name, f"not installed; {remedy}"
    except (ImportError, OSError) as error:
        return need.name, f"cannot be imported ({error}); {remedy}"
    return f"{need.name} {here}", "" if need.specifier.contains(here, True) else f"too old; {remedy}"


def check_unit_range(
    my_unit_range: Callable[[Tensor], Tensor],  # the answer to exercise 0.1
) -> None:
    """Numbers from -1 to 1 must become numbers from 0 to 1."""

    def hints():
        images = torch.linspace(-1, 1, 24).reshape(1, 3, 2, 4)
        given = images.clone()
        got = my_unit_range(given)
        if not torch.equal(given, images):
            yield "your function changes its argument: make a new tensor instead"
        yield compare(
            got,
            images / 2 + 0.5,
            {
                "nothing has changed yet: the smallest number is still -1": images,
                "you halved, but the numbers are still around 0: move them up": images / 2,
                "you moved the numbers up, but their range is still 2 wide: halve it": images + 1,
                "halve first, then move up by 0.5; or move up by 1, then halve": (images + 0.5) / 2,
                "the order of / and + matters: images / 2 + 0.5 is not images / (2 + 0.5)": images / 2.5,
                "negative numbers are not to be cut off: -1 becomes 0, and 0 becomes 0.5": images.clamp(0, 1),
            },
        )

    verdict("0.1", hints)


# ==== lesson 1: CLIP


def check_similarity(
    function: Callable[[Tensor, Tensor], Tensor],  # my_similarity(text, pictures)
) -> None:
    """Exercise 1.1: the cosine of every caption with every picture."""

    def hints():
        generator = torch.Generator().manual_seed(11)
        text, pictures = torch.randn(3, 5, generator=generator), torch.randn(4, 5, generator=generator)
        got = function(text.clone(), pictures.clone())
        if isinstance(got, Tensor) and got.shape == (4, 3):
            yield "rows are captions and columns pictures: yours is the other way round"
        wrong = {
            "these are dot products: bring each vector to length 1 first": text @ pictures.T,
            "each vector is to have length 1, along the last dimension: dim=-1": unit(text, 0) @ unit(pictures, 0).T,
            "only the captions have length 1: the pictures need it too": unit(text) @ pictures.T,
            "only the pictures have length 1: the captions need it too": text @ unit(pictures).T,
        }
        yield compare(got, unit(text) @ unit(pictures).T, wrong)

    verdict("1.1", hints)


def unit(
    x: Tensor,  # any shape
    dim: int = -1,
) -> Tensor:  # as x, length 1 along `dim`
    return torch.nn.functional.normalize(x, dim=dim)


def check_fair_loss(
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],  # my_fair_loss(text, pictures, log_scale, same)
) -> None:
    """Exercise 1.2: the contrastive loss in which equal captions are not negatives."""
    from sdlearn.clip import contrastive_loss  # here, since it brings in transformers

    def hints():
        generator = torch.Generator().manual_seed(12)
        text = unit(torch.randn(4, 6, generator=generator))[[0, 1, 0, 2, 3]]
        pictures = unit(torch.randn(5, 6, generator=generator))
        log_scale, same = torch.tensor(1.2), (text @ text.T) > 0.999
        got = function(text.clone(), pictures.clone(), log_scale.clone(), same.clone())
        if isinstance(got, Tensor) and not got.isfinite().all():
            yield "not a finite number: the diagonal of `same` is True as well, and the right answers must stay"
        rows, columns = one_way(log_scale.exp() * text @ pictures.T, same)
        wrong = {
            "the twins are still in it: use `same`": contrastive_loss(text, pictures, log_scale),
            "only one direction: each picture must find its caption too": rows,
            "only one direction: each caption must find its picture too": columns,
            "the two directions are to be averaged, not added": rows + columns,
            "log_scale is a logarithm: use its exponential": contrastive_loss(text, pictures, log_scale.log(), same),
            "multiply by the scale, do not divide by it": contrastive_loss(text, pictures, -log_scale, same),
            "a masked 0 still takes part in softmax: minus infinity does not": sum(
                one_way(log_scale.exp() * text @ pictures.T, same, 0.0)
            )
            / 2,
        }
        yield compare(got, contrastive_loss(text, pictures, log_scale, same), wrong)

    verdict("1.2", hints)


def one_way(
    logits: Tensor,  # b b
    same: Tensor,  # b b, True where two captions are equal
    fill: float = float("-inf"),  # what twins get
) -> tuple[Tensor, Tensor]:  # scalars
    """The loss in each direction: rows must find their columns, columns their rows."""
    right = torch.arange(len(logits))
    logits = logits.masked_fill(same & ~torch.eye(len(logits), dtype=torch.bool), fill)
    return torch.nn.functional.cross_entropy(logits, right), torch.nn.functional.cross_entropy(logits.T, right)


def check_class_vectors(
    function: Callable[..., Tensor],  # my_class_vectors(clip, tokenizer, sentences)
) -> None:
    """Exercise 1.3: several sentences for each class, averaged (arXiv 2103.00020, section 3.1.4)."""
    from sdlearn import parts
    from sdlearn.clip import embed_text, tokenize

    def hints():
        clip, tokenizer = parts.load_clip(), parts.load_tokenizer()
        sentences = [["a cat beside a horse", "a cat riding a red dragon"], ["a bear", "a bear by the sea", "a robot"]]
        tokens = [tokenize(tokenizer, some) for some in sentences]
        single = [embed_text(clip, some) for some in tokens]
        raw = [clip.get_text_features(some).pooler_output for some in tokens]
        got = function(clip, tokenizer, [list(some) for some in sentences])
        if isinstance(got, Tensor) and got.shape == single[0].shape[1:]:
            yield "one vector for each class, not one for all: average within a class, then `torch.stack`"
        mean = torch.stack([some.mean(0) for some in single])
        wrong = {
            "the average of vectors of length 1 is shorter than 1: normalise once more": mean,
            "bring each sentence to length 1 before you average: `embed_text` does": unit(
                torch.stack([some.mean(0) for some in raw])
            ),
            "that is the first sentence of each class: average over all of them": torch.stack(
                [some[0] for some in single]
            ),
        }
        yield compare(got, unit(mean), wrong)

    verdict("1.3", hints)


# ==== lesson 2: VAE


def check_posterior(
    my_sample_posterior: Callable[[Tensor, Tensor], Tensor],  # the answer to exercise 2.1
) -> None:
    """From the eight channels of an encoder to a latent."""

    def hints():
        generator = torch.Generator().manual_seed(21)
        moments, eps = torch.randn(2, 8, 3, 5, generator=generator), torch.randn(2, 4, 3, 5, generator=generator)
        mu, log_var = moments.chunk(2, dim=1)
        given, noise = moments.clone(), eps.clone()
        got = my_sample_posterior(given, noise)
        if not (torch.equal(given, moments) and torch.equal(noise, eps)):
            yield "your function changes its arguments: make new tensors instead"
        if isinstance(got, Tensor) and got.shape == moments.shape:
            yield "8 channels came back: split them, the first four are mu"
        wrong = {
            "that is mu alone: add sigma times eps": mu,
            "the second half is a logarithm: take its exponential": mu + log_var * eps,
            "exp(log_var) is the variance, and sigma is its root": mu + log_var.exp() * eps,
            "sigma is exp(log_var / 2), not exp(log_var) / 2": mu + log_var.exp() / 2 * eps,
            "the means come first, the logarithms second: yours are swapped": log_var + (mu / 2).exp() * eps,
            "only the noise is multiplied by sigma, and mu is added": (mu + eps) * (log_var / 2).exp(),
            "add the noise to mu: yours is sigma eps alone": (log_var / 2).exp() * eps,
            "the noise is missing: multiply sigma by eps": mu + (log_var / 2).exp(),
        }
        hint = compare(got, mu + (log_var / 2).exp() * eps, wrong)
        if hint and isinstance(got, Tensor) and not torch.equal(got, my_sample_posterior(moments, eps)):
            yield "two calls with the same eps differ: use the eps that you are given, and draw none"
        yield hint

    verdict("2.1", hints)


def check_psnr(
    my_psnr: Callable[[Tensor, Tensor], Tensor],  # the answer to exercise 2.2
) -> None:
    """Decibels for each picture."""

    def hints():
        generator = torch.Generator().manual_seed(22)
        x = torch.rand(3, 3, 6, 4, generator=generator) * 2 - 1
        strength = torch.tensor([0.05, 0.2, 0.8])[:, None, None, None]  # pictures of different quality
        y = x + strength * torch.randn(x.shape, generator=generator)
        got = my_psnr(x.clone(), y.clone())
        if isinstance(got, Tensor) and got.shape == ():
            yield "one number for all: flatten each picture, and take the mean over dimension 1 only"
        mse = (x - y).square().flatten(1).mean(1)
        wrong = {
            "the range is 2, not 1: from -1 to 1": 10 * (1 / mse).log10(),
            "the range is to be squared: 4, not 2": 10 * (2 / mse).log10(),
            "use the logarithm to base 10: `torch.log10`": 10 * (4 / mse).log(),
            "upside down: a better picture must have more decibels": 10 * (mse / 4).log10(),
            "10 log10, not 20: the error is squared already": 20 * (4 / mse).log10(),
            "multiply the logarithm by 10: decibels, not bels": (4 / mse).log10(),
            "no root: it is the mean of the squares": 10 * (4 / mse.sqrt()).log10(),
            "square the differences: these are absolute ones": 10 * (4 / (x - y).abs().flatten(1).mean(1)).log10(),
            "the mean of the squares, not their sum": 10 * (4 / (x - y).square().flatten(1).sum(1)).log10(),
        }
        yield compare(got, 10 * (4 / mse).log10(), wrong, atol=1e-3)

    verdict("2.2", hints)


def check_damage(
    my_damage: Callable[..., Tensor],  # the answer to exercise 2.3: my_damage(vae, latents)
) -> None:
    """What each channel of the latents is worth to the pictures, on a small VAE with random weights."""
    from sdlearn.vae import decode, new_vae  # here, since it brings in diffusers

    def hints():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(23)
            vae = new_vae().eval().requires_grad_(False)
        latents = torch.randn(3, 4, 2, 4, generator=torch.Generator().manual_seed(23))
        gone = [latents * (torch.arange(4) != c)[:, None, None] for c in range(4)]  # without channel c
        so_far = [latents * (torch.arange(4) > c)[:, None, None] for c in range(4)]
        alone = [latents * (torch.arange(4) == c)[:, None, None] for c in range(4)]
        whole = decode(vae, latents)

        def damage(variants, of=lambda x: (x - whole).square().mean()):
            return torch.stack([of(decode(vae, x)) for x in variants])

        given = latents.clone()
        got = my_damage(vae, given)
        if not torch.equal(given, latents):
            yield "your function changes the latents: work on `latents.clone()`, anew for each channel"
        if isinstance(got, Tensor) and got.shape == (3,):
            yield "one number for each picture: channels are dimension 1, latents[:, c]"
        unscaled = vae.decode(latents).sample
        wrong = {
            "each channel is to be zeroed alone: begin again from a clone of the whole latents": damage(so_far),
            "you kept one channel and zeroed the others: do it the other way round": damage(alone),
            "compare the pictures, not the latents: decode both": torch.stack(
                [(latents - x).square().mean() for x in gone]
            ),
            "the latents are scaled: `decode(vae, latents)` of sdlearn.vae undoes that": torch.stack(
                [(vae.decode(x).sample - unscaled).square().mean() for x in gone]
            ),
            "square the differences: these are absolute ones": damage(gone, lambda x: (x - whole).abs().mean()),
            "the mean of the squares, not their sum": damage(gone, lambda x: (x - whole).square().sum()),
            "no root: it is the mean of the squares": damage(gone, lambda x: (x - whole).square().mean().sqrt()),
        }
        small = 1e-4 * damage(gone).min().item()
        yield compare(got.detach() if isinstance(got, Tensor) else got, damage(gone), wrong, atol=small)

    verdict("2.3", hints)


# ==== lesson 3: noising


def check_noise_of(
    my_noise_of: Callable[[Tensor, Tensor, Tensor], Tensor],  # the answer to exercise 3.1
) -> None:
    """From x_t and x0 back to the noise that lies between them."""

    def hints():
        x0, eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(31))
        t = torch.tensor([0, 300, 999])
        x_t, a = noising.q_sample(x0, t, eps), noising.at(t, x0)
        rest = x_t - a.sqrt() * x0
        wrong = {
            "x_t holds sqrt(alpha_bar) x0, not x0: shrink x0 before you subtract it": (x_t - x0) / (1 - a).sqrt(),
            "the plain difference is not the noise: shrink x0 first, divide at the end": x_t - x0,
            "what is left after subtracting is sqrt(1 - alpha_bar) eps: divide": rest,
            "divide by the root of 1 - alpha_bar, not by 1 - alpha_bar": rest / (1 - a),
            "divide by the factor of the noise, sqrt(1 - alpha_bar), not by the signal's": rest / a.sqrt(),
            "the factor of x0 is the root of alpha_bar": (x_t - a * x0) / (1 - a).sqrt(),
            "the two factors are the wrong way round": (x_t - (1 - a).sqrt() * x0) / a.sqrt(),
            "this is sqrt(1 - alpha_bar) eps: divide, do not multiply, at the end": rest * (1 - a).sqrt(),
        }
        yield compare(my_noise_of(x_t, t, x0), eps, wrong, atol=1e-4)

    verdict("3.1", hints)


def check_step_at(
    my_step_at: Callable[[Tensor, float], int],  # the answer to exercise 3.2
) -> None:
    """The first step at which the signal-to-noise ratio is no higher than a given one."""

    def hints():
        for betas, ratio in ((noising.scaled_linear_betas(), 0.1), (noising.linear_betas(), 2.0)):
            a = noising.alpha_bar(betas)
            first = lambda curve, ratio=ratio: int((curve <= ratio).int().argmax())  # noqa: E731
            want, got = first(a / (1 - a)), my_step_at(betas, ratio)
            wrong = {
                first(a): "that is where alpha_bar reaches the ratio: the ratio is alpha_bar / (1 - alpha_bar)",
                first((a / (1 - a)).sqrt()): "no root here: the ratio compares variances",
                0: "at step 0 there is hardly any noise: is alpha_bar the product of all 1 - beta so far, and on top?",
                want + 1: "one too late: steps count from 0",
                want - 1: "one too early: this step is still above the ratio",
            }
            yield not_a_step(got) or (None if int(got) == want else wrong.get(int(got), f"wanted {want}; got {got}"))

    verdict("3.2", hints)


def not_a_step(
    got,  # what the learner's function returned
) -> str | None:  # a hint, or None where it is one whole number
    """Say why an answer cannot be the number of a step."""
    if got is None:
        return "your function returns nothing: is there a `return` at its end?"
    if isinstance(got, Tensor) and got.numel() != 1:
        return f"wanted one number; got a tensor of shape {tuple(got.shape)}"
    if isinstance(got, bool) or int(got) != got:
        return f"wanted the number of a step, a whole number; got {got}"
    return None


def check_zero_end(
    my_zero_end: Callable[[Tensor], Tensor],  # the answer to exercise 3.3
) -> None:
    """A schedule whose last step holds no signal at all (arXiv 2305.08891, algorithm 1)."""

    def hints():
        for betas in (noising.scaled_linear_betas(), noising.linear_betas(50)):
            given = betas.clone()
            got = my_zero_end(given)
            if not torch.equal(given, betas):
                yield "your function changes its argument: make a new tensor instead"
            a = noising.alpha_bar(betas)
            root = a.sqrt()
            moved = root - root[-1]
            good = moved * root[0] / moved[0]
            flat = (a - a[-1]) * a[0] / (a[0] - a[-1])
            if isinstance(got, Tensor) and got.shape == (len(betas) - 1,):
                yield "one beta is missing: the first is 1 - alpha_bar of step 0, with nothing to divide by"
            wrong = {
                "that is alpha_bar: turn it back into betas": good**2,
                "that is the root of alpha_bar: square it, then turn it back into betas": good,
                "turn roots back into alpha_bar (square them) before you make betas": betas_of(good),
                "these are 1 - beta: subtract them from 1": 1 - betas_of(good**2),
                "the end is right, but step 0 has moved too: stretch the roots to where they began": betas_of(moved**2),
                "stretch the root of alpha_bar, not alpha_bar itself": betas_of(flat),
                "nothing has changed: the last alpha_bar is still above 0": betas,
            }
            yield compare(got, betas_of(good**2), wrong)

    verdict("3.3", hints)


def betas_of(
    a: Tensor,  # steps, alpha_bar
) -> Tensor:  # steps
    """Undo `alpha_bar`: beta_t = 1 - alpha_bar_t / alpha_bar_(t-1)."""
    return 1 - torch.cat([a[:1], a[1:] / a[:-1]])


# ==== lesson 4: U-Net


def check_drop_captions(
    my_drop_captions: Callable,  # (text b l d, empty 1 l d, drop b) -> b l d
) -> None:
    """4.1: some captions give way to the empty prompt."""
    generator = torch.Generator().manual_seed(41)
    text = torch.randn(6, 6, 6, generator=generator)  # b = l = d, so that a wrong axis raises nothing
    empty = torch.randn(1, 6, 6, generator=generator)
    drop = torch.tensor([True, False, False, True, True, False])
    want = torch.stack([empty[0] if gone else row for gone, row in zip(drop.tolist(), text, strict=True)])
    wrong = {
        "`drop` went along the last axis: it needs the shape b 1 1, drop[:, None, None]": torch.where(
            drop, empty, text
        ),
        "`drop` went along the tokens: it needs the shape b 1 1": torch.where(drop[:, None], empty, text),
        "the wrong ones went: `drop` is True where a caption is to go": torch.where(drop[:, None, None], text, empty),
        "zeros are not the empty prompt: its encoding has numbers of its own": text * ~drop[:, None, None],
        "no caption was dropped": text,
        "all captions were dropped": empty.expand(6, -1, -1),
    }

    def hints():
        given = text.clone()
        yield compare(my_drop_captions(given, empty, drop), want, wrong)
        if not torch.equal(given, text):
            yield "right, but your function changed `text` itself: the next batch would miss its captions"

    verdict("4.1", hints)


def check_masked_attention(
    my_masked_attention: Callable,  # (q b l d, k b m d, v b m d, keep b m) -> b l d
) -> None:
    """4.2: attention that does not listen to padding."""
    generator = torch.Generator().manual_seed(42)
    q, k, v = (torch.randn(2, n, 8, generator=generator) for n in (5, 6, 6))
    keep = torch.tensor([[True, True, True, False, False, False], [True, True, True, True, True, False]])
    scores = q @ k.transpose(1, 2) / 8**0.5  # b l m
    gone = ~keep[:, None]  # b 1 m
    masked = scores.masked_fill(gone, float("-inf"))
    low = scores.masked_fill(gone, -1e9)
    wrong = {
        "padding is still heard: a score of 0 is no silence, since exp(0) is 1; use -inf": (scores * ~gone).softmax(-1),
        "set the scores, not the weights: after the softmax they no longer sum to 1": scores.softmax(-1) * ~gone,
        "padding is still heard: `keep` was not used": scores.softmax(-1),
        "only padding is heard: `keep` is True for words": scores.masked_fill(~gone, float("-inf")).softmax(-1),
        "the scores are not divided by sqrt(d)": (masked * 8**0.5).softmax(-1),
        "the scores are divided by d, not by its root": (masked / 8**0.5).softmax(-1),
        "the softmax runs over the places: it must run over the words, the last axis": low.softmax(1),
        "a softmax is missing: weights must be positive and sum to 1": scores * ~gone,
    }

    def hints():
        got = my_masked_attention(q.clone(), k.clone(), v.clone(), keep.clone())
        if isinstance(got, Tensor) and got.isnan().any():
            yield "there are NaNs: -inf times 0, or a softmax along an axis that is -inf all through"
        yield compare(got, masked.softmax(-1) @ v, {hint: weights @ v for hint, weights in wrong.items()})

    verdict("4.2", hints)


def check_skip_losses(
    my_skip_losses: Callable,  # (unet, x_t, t, eps, text) -> 4 losses
) -> None:
    """4.3: the loss with one skip connection set to zero, for each in turn; on a small U-Net with random weights."""
    unet, example = small_unet(seed=43)
    alone = [skips_zeroed(unet, example, {i}) for i in range(4)]
    growing = [skips_zeroed(unet, example, set(range(i + 1))) for i in range(4)]
    wrong = {
        "the order is not the one going down: up_blocks[0] gets the last two skips, up_blocks[1] the first two": [
            alone[i] for i in (2, 3, 0, 1)
        ],
        "the order is turned round: the first skip is the one that conv_in made": alone[::-1],
        "each loss has one more skip at zero than the one before: take your hook away before the next": growing,
        "each loss has all skips at zero: change one tensor of the tuple only": [growing[-1]] * 4,
        "nothing changed: does your hook return (args, kwargs), and is it registered with_kwargs=True?": [
            skips_zeroed(unet, example, set())
        ]
        * 4,
    }

    def hints():
        got = my_skip_losses(unet, *example)
        yield compare(got, torch.stack(alone), {hint: torch.stack(losses) for hint, losses in wrong.items()}, atol=1e-6)
        if any(module._forward_pre_hooks or module._forward_hooks for module in unet.modules()):
            yield "right, but your hooks are still in the U-Net: call .remove() on each"

    verdict("4.3", hints)


def small_unet(seed: int):  # U-Net with four skips, and an example as `diffusion_loss` takes it
    """A U-Net that is quick to run, with random weights; the global random state stays as it was."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = dict(down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2)
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2, **blocks
        )
        x_t, eps, text = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.randn(3, 5, 16)
    return unet.eval().requires_grad_(False), (x_t, torch.tensor([20, 500, 900]), eps, text)


def skips_zeroed(
    unet,  # with two up blocks of two ResNet blocks each
    example: tuple[Tensor, ...],  # x_t, t, eps, text
    zeroed: set[int],  # which skips are set to zero, counted going down: 0 is conv_in's
) -> Tensor:  # scalar, the loss
    """The loss of a U-Net some of whose skip connections carry zeros."""
    x_t, t, eps, text = example

    def hook(first):  # the number of the block's first skip
        def silence(block, args, kwargs):
            skips = kwargs["res_hidden_states_tuple"]
            quiet = tuple(torch.zeros_like(x) if first + i in zeroed else x for i, x in enumerate(skips))
            return args, kwargs | {"res_hidden_states_tuple": quiet}

        return silence

    hooks = [
        block.register_forward_pre_hook(hook(first), with_kwargs=True)
        for block, first in zip(unet.up_blocks, (2, 0), strict=True)
    ]
    try:
        return (unet(x_t, t, encoder_hidden_states=text).sample - eps).square().mean()
    finally:
        for handle in hooks:
            handle.remove()


# ==== lesson 5: sampling


def check_two_prompts(
    my_two_prompts: Callable[..., Tensor],  # eps_empty, eps_one, eps_other, scale_one, scale_other -> eps
) -> None:
    """Exercise 5.1: guidance towards two prompts at once."""
    empty, one, other = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(51))
    to_one, to_other = one - empty, other - empty
    want = empty + 3 * to_one + 2 * to_other
    wrong = {
        "eps_empty is missing: the differences are added to it": want - empty,
        "eps_empty is there twice: both directions start from the same one": want + empty,
        "the two scales are swapped": empty + 2 * to_one + 3 * to_other,
        "each direction starts at eps_empty: subtract eps_empty, not the other prompt": empty
        + 3 * (one - other)
        + 2 * (other - one),
        "the directions are reversed: from eps_empty to the prompt": 2 * empty - want,
        "scale each difference, not each prediction": empty + 3 * one + 2 * other,
        "both directions count in full: no average": empty + (3 * to_one + 2 * to_other) / 2,
    }

    def hints():
        given = empty.clone(), one.clone(), other.clone()
        yield compare(my_two_prompts(*given, 3.0, 2.0), want, wrong)
        if not torch.equal(given[0], empty):
            yield "your function changes eps_empty in place: write `a = a + b`, not `a += b`"

    verdict("5.1", hints)


def check_start_from_picture(
    my_start_from_picture: Callable[..., tuple[Tensor, Tensor]],  # x0, eps, scheduler, strength -> latents, timesteps
) -> None:
    """Exercise 5.2: noise a picture part of the way, and do only the rest of the steps."""
    scheduler = parts.stable_diffusion_scheduler()
    scheduler.set_timesteps(20)
    x0, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(52))
    steps = scheduler.timesteps

    def noised(t):
        return scheduler.add_noise(x0, eps, t.expand(2))

    def hints():
        for strength, keep in ((0.3, 6), (1.0, 20)):
            got = my_start_from_picture(x0.clone(), eps.clone(), scheduler, strength)
            if got is None:
                yield compare(None, x0)
            if not isinstance(got, tuple | list) or len(got) != 2:
                yield "wanted two things: `return latents, timesteps`"
            latents, timesteps = got
            wrong_steps = {
                "the last steps are wanted: you kept the first ones, which are the noisiest": steps[:keep],
                "strength 0.3 is 3 steps in 10 still to be done: you kept the other 7": steps[keep:],
                "you kept all of the steps": steps,
            }
            yield hint_of("timesteps", timesteps, steps[-keep:], wrong_steps)
            wrong_latents = {
                "the picture is still clean: add noise to it": x0,
                "this is only noise: the picture has to be in it": eps,
                "too much noise: take the first of the steps you kept, not of all steps": noised(steps[0]),
                "too little noise: take the first of the steps you kept, not the last": noised(steps[-1]),
                "x0 and eps are swapped in add_noise": scheduler.add_noise(eps, x0, steps[-keep].expand(2)),
                "plain x0 + eps: `scheduler.add_noise` weighs the two": x0 + eps,
            }
            yield hint_of("latents", latents, noised(steps[-keep]), wrong_latents)

    verdict("5.2", hints)


def hint_of(name: str, got, want: Tensor, wrong: dict[str, Tensor]) -> str | None:
    """`compare` for one of several results: a mistake that looks different is known by its shape, too."""
    for hint, mistake in wrong.items():
        if isinstance(got, Tensor) and got.shape == mistake.shape != want.shape and torch.allclose(got, mistake):
            return hint
    hint = compare(got, want, wrong)
    return hint if hint in (None, *wrong) else f"{name}: {hint}"


def check_rescale(
    my_rescale: Callable[..., Tensor],  # eps_guided, eps_text, share -> eps
) -> None:
    """Exercise 5.3: shrink a guided prediction to the deviation of the text's (arXiv 2305.08891, section 3.4)."""
    text, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(53))
    text = text * torch.tensor([0.5, 1.0, 2.0])[:, None, None, None]  # pictures of different deviation
    guided = 4 * text + other

    def rescaled(share, dims=(1, 2, 3)):
        ratio = text.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return share * guided * ratio + (1 - share) * guided

    upside_down = guided * guided.std((1, 2, 3), keepdim=True) / text.std((1, 2, 3), keepdim=True)
    wrong = {
        "the mix is the other way round: `share` belongs to the shrunken prediction": rescaled(0.3),
        "one deviation for each picture: you took one for the whole batch": rescaled(0.7, (0, 1, 2, 3)),
        "one deviation for each picture: you took one for each channel": rescaled(0.7, (2, 3)),
        "the ratio is upside down: text's deviation over the guided one's": 0.7 * upside_down + 0.3 * guided,
        "`share` is not used: mix the shrunken prediction with the guided one": rescaled(1.0),
        "nothing was shrunken": guided,
        "shrink eps_guided, not eps_text": 0.7 * text + 0.3 * guided,
    }

    def hints():
        given = guided.clone(), text.clone()
        yield compare(my_rescale(*given, 0.7), rescaled(0.7), wrong)
        if not torch.equal(given[0], guided):
            yield "your function changes eps_guided in place: write `a = a * b`, not `a *= b`"
        yield compare(my_rescale(*given, 0.0), guided)

    verdict("5.3", hints)


# ==== end of the lessons
