"""`sdlearn-draw`: a prompt in, a picture out."""

import re
import sys
import warnings
from pathlib import Path

from fastcore.script import CliError, call_parse
from PIL import Image
from tqdm import tqdm

from sdlearn import parts
from sdlearn.clip import END
from sdlearn.sampling import text_to_image
from sdlearn.scenes import WORDINGS, WORDS, to_pictures

SMALL = 5_000  # a vocabulary below this is one of ours: every word that the model knows is one token


def unknown_words(
    tokenizer,
    prompt: str,
) -> list[str]:  # words that a small model has never met
    """Words of which the tokenizer of a small model has only pieces; a large vocabulary makes sense of pieces."""
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) > SMALL:
        return []
    words = re.findall(r"[^\W\d_]+", prompt.lower())
    return [word for word in dict.fromkeys(words) if word + END not in vocabulary or len(word) == 1 and word != "a"]


def cut_off(
    tokenizer,
    prompt: str,
) -> str:  # what the model will not see, or nothing
    """The end of a prompt that is over the limit."""
    tokens = tokenizer(prompt).input_ids[1:-1]
    return tokenizer.decode(tokens[tokenizer.model_max_length - 2 :])


def advise(
    tokenizer,
    prompt: str,
) -> list[str]:  # lines for whoever typed it
    """What is odd about a prompt, and what would be better."""
    advice = []
    if unknown := unknown_words(tokenizer, prompt):
        known = "; ".join(", ".join(words) for words in [*WORDS.values(), *WORDINGS.values()])
        advice.append(f"this model has never seen: {', '.join(unknown)}. It knows: {known}")
    if end := cut_off(tokenizer, prompt):
        advice.append(f'the prompt is over {tokenizer.model_max_length - 2} tokens; this was cut off: "{end}"')
    return advice


def draw(
    prompt: str,  # what to paint; empty: anything
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # of the noise
    steps: int = 30,
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # one of parts.SCHEDULERS
    model: str = "mini",  # "mini", a directory, or a name on the hub
) -> Image.Image:  # the pictures in a row
    """Paint a prompt; a word that the model has never seen, or a prompt that is too long, gets a warning.

    Raises ValueError, OSError or MemoryError, with what is allowed, for settings that cannot be met.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    found = parts.load(model)
    found = found._replace(scheduler=parts.make_scheduler(scheduler, found.scheduler.config))
    for line in [*advise(found.tokenizer, prompt), *advise(found.tokenizer, negative)]:
        warnings.warn(line, stacklevel=2)
    pictures = text_to_image(found, [prompt] * n, negative, steps, guidance, seed, progress=tqdm)
    row = to_pictures(pictures).transpose(1, 0, 2, 3)  # h b w c
    return Image.fromarray(row.reshape(row.shape[0], -1, 3))


@call_parse
def main(
    prompt: str,  # what to paint, in quotes
    negative: str = "",  # what to steer away from
    n: int = 1,  # pictures, side by side
    seed: int = 0,  # of the noise: the same seed, the same picture
    steps: int = 30,  # denoising steps
    guidance: float = 4.0,  # 1: as trained; higher: closer to the prompt, less variety
    scheduler: str = "ddim",  # ddim, ddpm, pndm, lms, euler, dpm++ or unipc
    model: str = "mini",  # mini, a directory, or a name on the hub
    out: Path = Path("picture.png"),  # where to write it
):
    """Paint a prompt, write a PNG and print its path."""
    warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
    try:
        picture = draw(prompt, negative, n, seed, steps, guidance, scheduler, model)
        new = out.with_suffix(".part")
        picture.save(new, format="PNG")
        new.replace(out)
    except (ValueError, OSError, MemoryError) as error:
        raise CliError(str(error)) from error
    print(out)
