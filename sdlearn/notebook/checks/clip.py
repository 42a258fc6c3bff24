"""The checks of lesson 1."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from sdlearn import parts
from sdlearn.clip import END, contrastive_loss, count_pairs, embed_text, merge, tokenize
from sdlearn.notebook.checks import NOTHING, Hints, compare, exercise, kind


@exercise("1.1")
def check_similarity(
    my_similarity: Callable,  # text, pictures -> n m
) -> Hints:
    """The cosine of every caption with every picture."""
    generator = torch.Generator().manual_seed(11)
    text, pictures = torch.randn(3, 5, generator=generator), torch.randn(4, 5, generator=generator)
    if getattr(my_similarity(text=text, pictures=pictures[:3]), "shape", 0) == (3,):  # as many pictures as captions
        yield "that compares row i with row i only: every caption with every picture makes a table, n m"
    got = my_similarity(text=text, pictures=pictures)
    if isinstance(got, Tensor) and got.shape == (4, 3):
        yield "rows are captions and columns pictures: yours is the other way round"
    wrong = {
        "these are dot products: bring each vector to length 1 first": text @ pictures.T,
        "each vector is to have length 1, along the last dimension: dim=-1": unit(text, 0) @ unit(pictures, 0).T,
        "of the pictures, too, the length is taken along the last dimension: dim=-1": unit(text) @ unit(pictures, 0).T,
        "only the captions have length 1: the pictures need it too": unit(text) @ pictures.T,
        "only the pictures have length 1: the captions need it too": text @ unit(pictures).T,
    }
    yield compare(got, unit(text) @ unit(pictures).T, wrong)


def unit(
    x: Tensor,  # any shape
    dim: int = -1,
) -> Tensor:  # as x, length 1 along `dim`
    """Divide vectors by their length."""
    return torch.nn.functional.normalize(x, dim=dim)


@exercise("1.2")
def check_loss(
    my_loss: Callable,  # text, pictures, log_scale -> scalar
) -> Hints:
    """The contrastive loss of CLIP (arXiv 2103.00020, figure 3)."""
    text, pictures, log_scale = five_pairs()
    got = my_loss(text=text, pictures=pictures, log_scale=log_scale)
    wrong = mistakes(text, pictures, log_scale, torch.eye(5, dtype=torch.bool))
    yield compare(got, contrastive_loss(text, pictures, log_scale), wrong)


@exercise("1.3")
def check_fair_loss(
    my_fair_loss: Callable,  # text, pictures, log_scale, same -> scalar
) -> Hints:
    """The contrastive loss in which equal captions are not negatives."""
    text, pictures, log_scale = five_pairs()
    same = (text @ text.T) > 0.999
    got = my_fair_loss(text=text, pictures=pictures, log_scale=log_scale, same=same)
    if isinstance(got, Tensor) and not got.isfinite().all():
        yield "not a finite number: the diagonal of `same` is True as well, and the right answers must stay"
    logits = log_scale.exp() * text @ pictures.T
    rows, columns = one_way(logits, same)
    all_rows, all_columns = one_way(logits, torch.zeros_like(same))
    masks = (same, 0.0), (same.triu(),), (same.tril(),)
    masked_0, above, below = (torch.stack(one_way(logits, *mask)).mean() for mask in masks)
    wrong = {
        "equal captions still take part in softmax: use `same` before it": (all_rows + all_columns) / 2,
        "equal captions still count in the columns: leave them out in both directions": (rows + all_columns) / 2,
        "equal captions still count in the rows: leave them out in both directions": (all_rows + columns) / 2,
        "a masked 0 still takes part in softmax: minus infinity does not": masked_0,
        "equal captions still count below the diagonal: leave them out on both sides of it": above,
        "equal captions still count above the diagonal: leave them out on both sides of it": below,
    } | mistakes(text, pictures, log_scale, same)
    yield compare(got, contrastive_loss(text, pictures, log_scale, same), wrong)


def five_pairs() -> tuple[Tensor, Tensor, Tensor]:  # text b d and pictures b d, of length 1; log of the scale
    """Five pairs; captions 0 and 2 are equal."""
    generator = torch.Generator().manual_seed(12)
    text = unit(torch.randn(4, 6, generator=generator))[[0, 1, 0, 2, 3]]
    return text, unit(torch.randn(5, 6, generator=generator)), torch.tensor(1.2)


def mistakes(
    text: Tensor,  # these three as in `contrastive_loss`
    pictures: Tensor,
    log_scale: Tensor,
    same: Tensor,  # b b, True where two captions are equal and not each other's negatives
) -> dict[str, Tensor]:  # hint -> what the mistake gives
    """What goes wrong in a contrastive loss, with or without equal captions."""
    rows, columns = one_way(log_scale.exp() * text @ pictures.T, same)
    return {
        "the sign is flipped: the loss is minus the logarithm of a probability": -(rows + columns) / 2,
        "the scale is missing: multiply by log_scale.exp()": contrastive_loss(text, pictures, 0 * log_scale, same),
        "the mean over the batch, not the sum": len(text) * (rows + columns) / 2,
        "only one direction: each picture must find its caption too": rows,
        "only one direction: each caption must find its picture too": columns,
        "the two directions are to be averaged, not added": rows + columns,
        "log_scale is a logarithm: use its exponential": contrastive_loss(text, pictures, log_scale.log(), same),
        "multiply by the scale, do not divide by it": contrastive_loss(text, pictures, -log_scale, same),
    }


def one_way(
    logits: Tensor,  # b b
    same: Tensor,  # b b, True where two captions are equal
    fill: float = float("-inf"),  # what these get
) -> tuple[Tensor, Tensor]:  # scalars
    """The loss in each direction: rows must find their columns, columns their rows."""
    right = torch.arange(len(logits))
    logits = logits.masked_fill(same & ~torch.eye(len(logits), dtype=torch.bool), fill)
    return torch.nn.functional.cross_entropy(logits, right), torch.nn.functional.cross_entropy(logits.T, right)


@exercise("1.4", pieces="your function changes `pieces`: leave it as it is, fill a new dictionary and return that")
def check_merge_step(
    my_merge_step: Callable,  # pieces, words -> pieces
) -> Hints:
    """One step of byte pair encoding (arXiv 1508.07909, algorithm 1)."""
    several = {"cat": 1, "car": 1, "can": 1, "moon": 4, "room": 3}, {"footloose": 2, "oooh": 1, "moon": 3}
    for words in (*several, {"moon": 2, "hat": 2}):  # in the last, all pairs meet equally often
        letters: dict[str, tuple[str, ...]] = {word: (*word[:-1], word[-1] + END) for word in words}
        yield merge_hint(my_merge_step, letters, Counter(words))
    joined = {"moon": ("m", "oo", "n</w>"), "moose": ("m", "oo", "s", "e</w>"), "soon": ("s", "oo", "n</w>")}
    yield merge_hint(my_merge_step, joined, Counter({"moon": 5, "moose": 2, "soon": 1}))
    within = {"moon": ("m", "oo", "n</w>"), "moose": ("m", "oo", "s", "e</w>"), "hmoon": ("hm", "oo", "n</w>")}
    yield merge_hint(my_merge_step, within, Counter({"moon": 3, "moose": 2, "hmoon": 1}))


def merge_hint(
    my_merge_step: Callable,  # the learner's
    pieces: dict[str, tuple[str, ...]],  # word -> its pieces
    words: Counter,  # word -> how often it occurs
) -> str | None:  # a hint, or None where the step is right
    """Take one step, and say how it differs from the right one."""
    got = my_merge_step(pieces=pieces, words=words)
    if got is None:
        return NOTHING
    if not isinstance(got, dict):
        return f"wanted a dictionary, word -> pieces; got {kind(got)}"
    if set(got) != set(pieces):
        return f"all words are to be in the answer, joined or not: {', '.join(pieces)}; got {', '.join(map(str, got))}"
    if odd := [word for word in pieces if not isinstance(got[word], tuple)]:
        return f"a word's pieces are to be a tuple, as before; {odd[0]!r} has a {type(got[odd[0]]).__name__}"
    spelt = {word: "".join(map(str, got[word])) for word in pieces}
    if odd := [word for word in pieces if spelt[word] != word + END]:
        return f"put together, the pieces of {odd[0]!r} must spell {odd[0] + END}, no letter twice; got {spelt[odd[0]]}"
    return wrong_step(got, pieces, words)


def wrong_step(
    got: dict[str, tuple[str, ...]],  # word -> its pieces, well formed
    pieces: dict[str, tuple[str, ...]],  # as they were before the step
    words: Counter,  # word -> how often it occurs
) -> str | None:  # a hint, or None where the step is right
    """Name the mistake in a step that gives back all words, whole."""
    met, unweighted = count_pairs(pieces, words), count_pairs(pieces, dict.fromkeys(words, 1))
    best, plain = (max(sorted(table), key=lambda pair: table[pair]) for table in (met, unweighted))
    right = {word: merge(split, best) for word, split in pieces.items()}
    if got == right:
        return None
    if got == pieces:
        return "nothing new was joined: count neighbours among the pieces, which may be longer than one letter"
    if got == {word: merge(split, plain) for word, split in pieces.items()}:
        return "each pair was counted once per word: count it as often as the word occurs, `words[word]` times"
    if got == {word: join_once(split, best) for word, split in pieces.items()}:
        return "a pair may stand in a word more than once: join it wherever it stands"
    for pair in met:
        if got == {word: merge(split, pair) for word, split in pieces.items()}:
            if met[pair] == met[best]:
                return f"{pair} and {best} meet equally often: of equals take the first in the alphabet"
            return f"you joined {pair}, whose count is {met[pair]}; {best} have {met[best]}"
    spaced = {word: " ".join(split).replace(" ".join(best), "".join(best)) for word, split in pieces.items()}
    if got == {word: tuple(text.split()) for word, text in spaced.items()}:
        return f"only whole pieces are joined: a piece that ends in {best[0]} is not the piece {best[0]}"
    if sum(map(len, got.values())) < sum(map(len, right.values())):
        return "one step joins one pair only: the next pair waits for the next step"
    word = next(word for word in right if got[word] != right[word])
    return f"{' '.join(pieces[word])} should become {' '.join(right[word])}; yours is {' '.join(map(str, got[word]))}"


def join_once(
    split: tuple[str, ...],  # the pieces of a word
    pair: tuple[str, str],
) -> tuple[str, ...]:  # joined where the pair stands first, and not again
    """A merge that stops too early."""
    places = [i for i in range(len(split)) if split[i : i + 2] == pair]
    return (*split[: places[0]], "".join(pair), *split[places[0] + 2 :]) if places else split


@exercise("1.5", "classes may have different numbers of sentences: average each class on its own, then stack")
def check_class_vectors(
    my_class_vectors: Callable,  # clip, tokenizer, sentences -> classes d
) -> Hints:
    """Several sentences for each class, averaged (arXiv 2103.00020, section 3.1.4)."""
    clip, tokenizer = parts.load_clip(), parts.load_tokenizer()
    sentences = [["a cat beside a horse", "a cat riding a red dragon"], ["a bear", "a bear by the sea", "a robot"]]
    tokens = [tokenize(tokenizer, some) for some in sentences]
    single = [embed_text(clip, some) for some in tokens]
    raw = [clip.get_text_features(some).pooler_output for some in tokens]
    got = my_class_vectors(clip=clip, tokenizer=tokenizer, sentences=sentences)
    if isinstance(got, Tensor) and got.shape == single[0].shape[1:]:
        yield "one vector for each class, not one for all: average within a class, then `torch.stack`"
    classes = single, raw, [unit(x, 0) for x in raw], [unit(x, 0) for x in single]
    mean, bare, across, twice = (torch.stack([some.mean(0) for some in vectors]) for vectors in classes)
    wrong = {
        "the average of vectors of length 1 is shorter than 1: normalise once more": mean,
        "bring each sentence to length 1 before you average: `embed_text` does": unit(bare),
        "that is the first sentence of each class: average over all of them": torch.stack([some[0] for some in single]),
        "the length of a class vector is taken over the last dimension: dim=-1": unit(mean, 0),
        "the length of a sentence's vector is taken over the last dimension: dim=-1": unit(across),
        "`embed_text` gives length 1 already; lengths are taken over the last dimension, dim=-1": unit(twice),
    }
    yield compare(got, unit(mean), wrong)


@exercise("1.6", "compare rows with their own number as a column: `torch.arange(n)[:, None]`")
def check_found(
    my_found: Callable,  # text, pictures, k -> n, True or False
) -> Hints:
    """Whether a picture's own caption is among the k nearest to it."""
    generator = torch.Generator().manual_seed(15)
    text, pictures = (unit(torch.randn(12, 5, generator=generator)) for _ in range(2))
    table = pictures @ text.T  # row: picture, column: caption
    for k in (3, 1, 5):
        got = my_found(text=text, pictures=pictures, k=k)
        if isinstance(got, float) or (isinstance(got, Tensor) and got.dim() == 0):
            yield "one answer for each picture, True or False: leave the mean to those who ask"
        if isinstance(got, Tensor) and got.shape == (12, k):
            yield "one answer for each picture, not k: is its own caption *any* of them? `any(1)` says so"
        wrong = {
            "there each caption looks for its picture: here each picture looks for its caption": among(table.T, k),
            "only the very nearest counts in yours: k may count": among(table, 1),
            "those are the k captions that are *least* like the picture": among(-table, k),
            "one too many: the own caption takes one of the k places itself": among(table, k + 1),
            "that is True where the caption was *not* found: turn it round": ~among(table, k),
        }
        yield compare(got, among(table, k), wrong)


def among(
    table: Tensor,  # n n, similarities: in row i, column i is the right one
    k: int,  # 1 or more
) -> Tensor:  # n, True where the right one is among the k largest of its row
    """Which rows find their own column."""
    return (table > table.diag()[:, None]).sum(1) < k
