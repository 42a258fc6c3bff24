"""The diagrams of the lessons; each function returns what a cell shows as its last line.

The U-Net and its attention block are drawn in `diagrams_unet`, lesson 8's in `diagrams_measuring`.
"""

from collections.abc import Sequence

import torch

from sdlearn.noising import STABLE_DIFFUSION
from sdlearn.notebook.drawing import COLOURS, INK, PAPER, Diagram, Drawing, noise, tint

PICTURES, LATENTS, TEXT = (3, 64, 64), (4, 8, 8), (24, 128)  # the sizes of the course's own model
CAPTIONS = {"an astronaut": "astronaut", "a boat": "boat", "a tree": "tree", "a house": "house"}
PALE = "#e4e4ec"


def shape(
    *sizes: int | str,  # all but the first
    b: str = "b",  # the first: how many pictures
) -> str:
    """(b, 4, 8, 8), as a cell prints it."""
    return f"({', '.join(map(str, (b, *sizes)))})"


# ---------------------------------------------------------------- lesson 0


def five_parts(
    text: tuple[int, int] = TEXT,  # tokens in a prompt, numbers per token; Stable Diffusion v1-4: (77, 768)
    latents: tuple[int, int, int] = LATENTS,  # c h w; (4, 64, 64)
    pictures: tuple[int, int, int] = PICTURES,  # c h w; (3, 512, 512)
    steps: int = 30,  # how often the loop is run
    here: Sequence[str] = (),  # parts that this lesson is about, as in drawing.COLOURS: these stand out
) -> Diagram:
    """From a prompt to a picture: the five parts, and the shapes of what flows between them."""
    about = "A prompt goes through tokenizer and text encoder into the U-Net. U-Net and scheduler take turns to make "
    about += "random latents less noisy: both get the latents. At the end the VAE decoder turns them into a picture."
    d = Drawing("The five parts of Stable Diffusion", about, 476, here)
    encode_prompt(d, text)
    loop(d, latents, steps)
    d.latents(104, 384, 0, 1, seed=1)
    d.caption(104, 426, "random noise", shape(*latents))
    d.latents(470, 384, 0.8, 0.6, seed=1)
    d.caption(470, 426, "latents", shape(*latents))
    d.box(618, 384, 116, 90, "vae", "VAE\ndecoder", "lesson 2", taper=-14)
    d.picture(734, 384, 72)
    d.caption(734, 436, "picture", shape(*pictures))
    d.arrows([(146, 384), (440, 384)], [(512, 384), (559, 384)], [(677, 384), (696, 384)])
    for x, fill, words in ((560, tint("unet"), "learned"), (660, "#ffffff", "without weights")):
        d.bar(x, 34, 22, 14, fill, COLOURS["unet"])
        d.text(x + 18, 34, words, anchor="start")
    return d.done()


def encode_prompt(
    d: Drawing,
    text: tuple[int, int],  # tokens, numbers per token
) -> None:
    """The left of the map: from the prompt to the U-Net."""
    d.text(104, 32, "“an astronaut on the moon”")
    d.box(104, 94, 140, 54, "tokenizer", "tokenizer", "lesson 1", learned=False)
    d.code(114, 145, shape(text[0]), "start")
    d.box(104, 202, 140, 60, "text_encoder", "text encoder", "lesson 1")
    d.code(224, 132, shape(*text))
    d.vectors(224, 168)
    d.arrows([(104, 44), (104, 66)], [(104, 121), (104, 171)], [(174, 202), (306, 202)])


def loop(
    d: Drawing,
    latents: tuple[int, int, int],  # c h w
    steps: int,
) -> None:
    """The middle of the map: U-Net and scheduler take turns."""
    d.frame(475, 210, 396, 196, "scheduler")
    d.text(365, 132, "step t")
    d.box(365, 202, 116, 60, "unet", "U-Net", "lesson 4")
    d.text(475, 148, "predicted noise")
    d.latents(470, 202, 0, 1, seed=2)
    d.code(470, 242, shape(*latents))
    d.box(585, 202, 116, 60, "scheduler", "scheduler", "lessons 3, 5", learned=False)
    d.text(600, 132, f"repeat {steps} times", colour=COLOURS["scheduler"])
    d.arrows([(365, 144), (365, 171)], [(424, 202), (442, 202)], [(508, 202), (526, 202)])
    d.arrows([(610, 233), (610, 290), (492, 290), (492, 338)], [(452, 338), (452, 290), (365, 290), (365, 233)])
    d.arrow((472, 338), (472, 270), (560, 270), (560, 233))


# ---------------------------------------------------------------- lessons 1 and 2


def clip(
    size: int = 64,  # numbers per vector in the shared space; Stable Diffusion's CLIP: 768
) -> Diagram:
    """Two encoders, and the similarity of every caption to every picture: the diagonal should win."""
    about = "Captions go through the text encoder, pictures through the image encoder. A table holds the similarity of "
    about += "each caption (row) to each picture (column). Those on its diagonal belong together and should be high."
    d, cell, left, top = Drawing("CLIP: two encoders and a table of similarities", about, 530), 62, 532, 264
    clip_legend(d)
    d.box(290, top + 1.5 * cell, 120, 248, "text_encoder", "text\nencoder")
    d.box(left + 1.5 * cell, 124, 248, 46, "image_encoder", "image encoder")
    for i, (caption, scene) in enumerate(CAPTIONS.items()):
        x, y, values = left + i * cell, top + i * cell, noise(1, 8, i)
        d.text(192, y, f"“{caption}”", anchor="end")
        d.numbers(420, y, values, (8, 14), "text_encoder")
        d.picture(x, 50, 50, scene)
        d.numbers(x, 200, values.T, (14, 6), "image_encoder")
        d.arrows([(200, y), (229, y)], [(351, y), (380, y)], [(x, 77), (x, 100)], [(x, 148), (x, 171)])
        for j in range(len(CAPTIONS)):
            d.bar(left + j * cell, y, cell - 4, cell - 4, INK if i == j else PALE)
    d.code(420, top + 3 * cell + 24, shape(size))
    d.code(464, 200, shape(size))
    d.code(left + 1.5 * cell, top + 3.5 * cell + 14, shape("b"))
    return d.done()


def clip_legend(d: Drawing) -> None:
    """What the table of similarities should look like, and the two questions that the loss asks."""
    d.bar(64, 52, 28, 28, INK)
    d.text(92, 52, "a caption and its own picture:\nsimilarity high", anchor="start")
    d.bar(64, 104, 28, 28, PALE)
    d.text(92, 104, "a caption and another picture:\nsimilarity low", anchor="start")
    d.text(92, 152, "each row: which picture is mine?", anchor="start")
    d.text(92, 187, "each column: which caption is mine?", anchor="start")
    d.arrows([(50, 152), (80, 152)], [(64, 174), (64, 200)])


def vae(
    pictures: tuple[int, int, int] = PICTURES,  # c h w; Stable Diffusion v1-4: (3, 512, 512)
    latents: tuple[int, int, int] = LATENTS,  # c h w; (4, 64, 64)
) -> Diagram:
    """The autoencoder: a mean and a standard deviation for each latent, a sample by reparameterisation, and back."""
    about = "The encoder turns a picture into mu and sigma. The latents are z = mu + sigma times eps, with eps drawn "
    about += "from a normal distribution. The decoder turns z into a picture that should equal the first."
    d = Drawing("The variational autoencoder (VAE)", about, 440)
    for x, name in ((66, "picture"), (734, "reconstruction")):
        d.picture(x, 184, 68)
        d.caption(x, 236, name, shape(*pictures))
    d.box(164, 184, 92, 118, "vae", "VAE\nencoder", taper=20)
    d.box(636, 184, 92, 118, "vae", "VAE\ndecoder", taper=-20)
    d.latents(532, 184, 1, 0.3)
    d.caption(532, 226, "latents z", shape(*latents))
    d.arrows([(102, 184), (117, 184)], [(481, 184), (502, 184)], [(574, 184), (589, 184)], [(683, 184), (698, 184)])
    sample_latents(d, latents)
    d.line((66, 274), (66, 396), (734, 396), (734, 274), dashed=True)
    d.bar(400, 396, 330, 24, PAPER)
    d.text(400, 396, "reconstruction loss: the two should be equal")
    return d.done()


def sample_latents(
    d: Drawing,
    latents: tuple[int, int, int],  # c h w
) -> None:
    """The middle of the autoencoder: from mean and standard deviation to one sample."""
    d.text(276, 40, "mean μ")
    d.latents(276, 96)
    d.code(276, 134, shape(*latents))
    d.text(282, 184, "KL loss:\ntowards N(0, 1)")
    d.latents(276, 272, 0, 0.3, seed=3)
    d.caption(276, 312, "standard deviation σ", shape(*latents))
    d.box(412, 184, 136, 58, "vae", "z = μ + σ ε", "reparameterise", learned=False)
    d.latents(438, 298, 0, 1)
    d.text(444, 338, "noise ε from N(0, 1)")
    d.arrows([(211, 174), (224, 174), (224, 96), (246, 96)], [(211, 194), (224, 194), (224, 272), (246, 272)])
    d.arrows([(318, 96), (412, 96), (412, 154)], [(318, 272), (386, 272), (386, 213)], [(438, 258), (438, 213)])


# ---------------------------------------------------------------- lessons 3 and 5


def noising() -> Diagram:
    """The forward process: many small steps into the noise, or one jump to any step."""
    about = "Clean latents become noise. The latents at step t are reached by many small steps, each of which adds a "
    about += "little noise, or by one jump with the two factors of step t."
    d, colour = Drawing("Noising: step by step, and in one jump", about, 432), COLOURS["scheduler"]
    steps = (250, 500, 750, 999)
    signals, noises = (x.flatten().tolist() for x in STABLE_DIFFUSION.factors(torch.tensor(steps), torch.zeros(4)))
    d.latents(84, 258, cell=9)
    d.text(84, 316, "clean latents x_0")
    for i, (t, signal, eps) in enumerate(zip(steps, signals, noises, strict=True)):
        x, start, top = 244 + 156 * i, 84 - 12 * i, 168 - 28 * i
        d.arrow((x - 102, 258), (x - 42, 258), dashed=True)
        d.arrow((start, 204), (start, top), (x, top), (x, 204), colour=colour)
        d.latents(x, 258, signal, eps, cell=9)
        d.text(x, 316, f"x_t at t = {t}")
        d.text(x, 338, f"{signal:.2f} x_0 + {eps:.2f} ε")
    d.arrow((222, 40), (262, 40), colour=colour)
    d.text(274, 40, "in one jump: x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε", 15, "start")
    d.arrow((222, 394), (262, 394), dashed=True)
    d.text(274, 394, "step by step: x_t = √(1 − β_t) x_{t−1} + √β_t ε", 15, "start")
    return d.done()


def guidance_loop(
    latents: tuple[int, int, int] = LATENTS,  # c h w; Stable Diffusion v1-4: (4, 64, 64)
    text: tuple[int, int] = TEXT,  # tokens in a prompt, numbers per token; (77, 768)
) -> Diagram:
    """One step of the loop: the latents twice, two predictions, guided to one, and a little less noise."""
    about = "The latents go into the U-Net twice, in one batch, with the empty prompt and with yours. Guidance turns "
    about += "the two predictions into one, and the scheduler takes a little of that noise out of the latents."
    d = Drawing("One step of the loop, with guidance", about, 468)
    d.latents(62, 224, 0.6, 0.8)
    d.caption(62, 264, "latents x_t", shape(*latents))
    d.caption(170, 348, "twice", shape(*latents, b="2b"))
    predict_twice(d, text)
    d.text(600, 112, "ε = ε_{empty} + s (ε_{text} − ε_{empty})", 14)
    d.box(560, 224, 116, 64, "scheduler", "guide", "scale s", learned=False)
    d.text(638, 208, "ε", 14)
    d.box(722, 224, 120, 64, "scheduler", "scheduler", "one step", learned=False)
    d.arrows([(478, 144), (560, 144), (560, 191)], [(478, 304), (560, 304), (560, 257)], [(619, 224), (661, 224)])
    d.arrow((702, 257), (702, 408), (82, 408), (82, 298))
    d.arrow((42, 298), (42, 444), (742, 444), (742, 257))
    for y, words in ((408, "a little less noisy: the next x_t"), (444, "the latents x_t, to take the noise out of")):
        d.bar(410, y, 290, 24, PAPER)
        d.text(410, y, words)
    return d.done()


def predict_twice(
    d: Drawing,
    text: tuple[int, int],  # tokens, numbers per token
) -> None:
    """The left of the loop: one pass of the U-Net for both prompts."""
    d.box(304, 224, 150, 232, "unet", "U-Net")
    prompts = (255, 144, "empty prompt", "ε_{empty}", 6), (353, 304, "your prompt", "ε_{text}", 7)
    for x, y, prompt, words, seed in prompts:
        d.text(x, 24, prompt)
        d.vectors(x, 60, seed=seed)
        d.latents(166, y, 0.6, 0.8)
        d.latents(438, y, 0, 1, seed)
        d.text(440, y + 40, words, 14)
        d.arrows([(x, 87), (x, 107)], [(206, y), (228, y)], [(380, y), (408, y)])
        d.arrow((102, 224), (118, 224), (118, y), (136, y))
    d.code(394, 60, shape(*text, b="2b"), "start")
    d.text(304, 380, "step t")
    d.arrow((304, 370), (304, 342))
