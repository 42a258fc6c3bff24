"""Whatever would broadcast in silence, or is of another kind, is refused with what was wanted and what came."""

import re

import pytest
import torch

from sdlearn import clip, judging, noising, parts, sampling, scenes, shapes, unet, vae

X = torch.zeros(2, 4, 8, 8)
T = torch.tensor([0, 999])
TEXT = torch.zeros(2, 3, 5)


@pytest.fixture(scope="module")
def model():
    return parts.load("mini", "cpu")


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def test_numbers_must_agree_and_letters_may_be_anything():
    shapes.check_shape(X, "x", 2, "c", 8, "w")
    for shape in ((2, "c", 8), (3, "c", 8, "w"), (2, "c", 8, "w", 1)):
        with pytest.raises(ValueError, match="x must have shape"):
            shapes.check_shape(X, "x", *shape)
    with says("x must have shape (b, 3); got list"):
        shapes.check_shape([[1, 2, 3]], "x", "b", 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noising.q_sample(X, T, X[:1]), "eps must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (lambda: noising.q_sample(X, T, X[:, :1]), "eps must have shape (2, 4, 8, 8); got (2, 1, 8, 8)"),
        (lambda: noising.predict_x0(X, T, X[..., :1]), "eps must have shape (2, 4, 8, 8); got (2, 4, 8, 1)"),
        (lambda: noising.one_step(X, 0.1, X[:1]), "eps must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (lambda: noising.q_sample(X, T[:1], X), "t must have shape (2,), one step per picture; got (1,)"),
        (lambda: noising.q_sample(X, -T, X), "t must lie between 0 and 999; got -999 .. 0"),
        (lambda: noising.snr(T + 1), "t must lie between 0 and 999; got 1 .. 1000"),
        (lambda: noising.q_sample(X, T / 2, X), "t must hold integers; got (2,)"),
        (lambda: noising.q_sample(X, T > 5, X), "t must hold integers; got (2,) bool"),
        (lambda: vae.reparameterise(X, X[:1], X), "sigma must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (lambda: vae.kl_divergence(X, X[:, :1]), "sigma must have shape (2, 4, 8, 8); got (2, 1, 8, 8)"),
        (lambda: vae.psnr(X, X[:1]), "y must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (
            lambda: unet.drop_captions(TEXT, TEXT, torch.ones(2).bool()),
            "empty must have shape (1, 3, 5); got (2, 3, 5)",
        ),
        (lambda: unet.drop_captions(TEXT, TEXT[:1], torch.ones(1).bool()), "drop must have shape (2,); got (1,) bool"),
        (lambda: unet.attention(TEXT, TEXT[:1], TEXT[:1]), "k must have shape (2, m, 5); got (1, 3, 5)"),
        (lambda: unet.attention(TEXT, TEXT, TEXT[:, :1]), "v must have shape (2, 3, 5); got (2, 1, 5)"),
        (lambda: unet.diffusion_loss(None, X, T, X[:1], TEXT), "eps must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (lambda: sampling.guide(X, X[:1], 4.0), "eps_text must have shape (2, 4, 8, 8); got (1, 4, 8, 8)"),
        (
            lambda: clip.contrastive_loss(X[0, 0], X[0, 0, :1], X[0, 0, 0, 0]),
            "pictures must have shape (8, 8); got (1, 8)",
        ),
        (lambda: scenes.to_pictures(X[:, :3].byte()), "pictures must be floats, as `scenes.to_tensor` makes them"),
        (lambda: scenes.to_pictures(X), "pictures must have shape (b, 3, h, w); got (2, 4, 8, 8)"),
    ],
)
def test_what_would_broadcast_or_wrap_around_is_refused(call, message):
    with says(message):
        call()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (
            torch.zeros(2, 3, 64, 64).byte(),
            "pictures must be floats, as `scenes.to_tensor` makes them; got (2, 3, 64, 64) uint8",
        ),
        (torch.zeros(2, 64, 64, 3), "pictures must have shape (b, 3, h, w); got (2, 64, 64, 3)"),
        (torch.zeros(2, 3, 60, 64), "the sides of pictures must be divisible by 8; got (2, 3, 60, 64)"),
        (torch.zeros(3, 64, 64), "pictures must have shape (b, 3, h, w); got (3, 64, 64)"),
        (scenes.sample(1, 0)[0], "pictures must have shape (b, 3, h, w); got ndarray"),
    ],
)
def test_the_autoencoder_wants_pictures_that_can_be_halved(model, pictures, message):
    with says(message):
        vae.encode(model.vae, pictures)


def test_latents_of_another_model_are_refused(model):
    with says("latents must have shape (b, 4, h, w); got (2, 3, 8, 8)"):
        vae.decode(model.vae, X[:, :3])


def test_the_judge_and_clip_want_floats():
    pictures = torch.zeros(1, 3, 64, 64).byte()
    for call in (
        lambda: judging.read(parts.load_judge(), pictures),
        lambda: clip.embed_pictures(parts.load_clip(), pictures),
    ):
        with says("pictures must be floats"):
            call()


@pytest.mark.parametrize(
    ("prompts", "negative", "message"),
    [
        ("a cat", ["a dog"], "negative must be one text, for all pictures; got list"),
        (["a cat", 3], "", "prompts must be one text or a list of texts; got ['str', 'int']"),
        ([], "", "prompts must be one text or a list of texts; got []"),
        ("a \udcff", "", "the prompt 'a \\udcff' is not valid text: write it in UTF-8"),
        ("a cat", "\udcff", "the prompt '\\udcff' is not valid text: write it in UTF-8"),
        ([None], "", "prompts must be one text or a list of texts; got ['NoneType']"),
    ],
)
def test_prompts_are_texts(model, prompts, negative, message):
    with says(message):
        sampling.text_to_image(model, prompts, negative, steps=1)


def test_another_default_type_draws_the_same_picture(model):
    wanted, before = sampling.text_to_image(model, "a cat riding a horse", steps=3), torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        drawn = sampling.text_to_image(model, "a cat riding a horse", steps=3)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(drawn, wanted, atol=1e-4, rtol=0)
