"""Lesson 1: the tokenizer, the towers and the contrastive loss have the properties that the lesson promises."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from tokenizers.pre_tokenizers import ByteLevel
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from sdlearn import parts, scenes
from sdlearn.clip import (
    LENGTH,
    byte_letters,
    clip_loss,
    contrastive_loss,
    count_pairs,
    embed_pictures,
    embed_text,
    learn_merges,
    merge,
    new_clip,
    new_tokenizer,
    retrieval,
    tokenize,
)
from sdlearn.notebook.checks.clip import (
    check_class_vectors,
    check_fair_loss,
    check_found,
    check_loss,
    check_merge_step,
    check_similarity,
)
from sdlearn.tools.saving import text_encoder_of
from sdlearn.training import fit

PROMPT = "a photograph of an astronaut riding a horse on the moon"


@pytest.fixture(scope="module")
def some():
    """Eight scenes with captions that all differ."""
    pictures, captions, _ = scenes.sample(8, seed=3)
    assert len(set(captions)) == 8
    return scenes.to_tensor(pictures), captions


@pytest.fixture(scope="module")
def tok():
    return new_tokenizer(scenes.sample(300, seed=1)[1])


@pytest.fixture(scope="module")
def clip(tok):
    torch.manual_seed(0)
    return new_clip(tok).requires_grad_(False)


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ---------------------------------------------------------------- tokenizer


def test_merges_of_the_paper():
    words = Counter({"low": 5, "lower": 2, "newest": 6, "widest": 3})
    assert learn_merges(words, 3) == [("e", "s"), ("es", "t</w>"), ("l", "o")]


def test_merge_joins_every_occurrence_and_no_letter_twice():
    assert merge(("a", "b", "a", "b", "c"), ("a", "b")) == ("ab", "ab", "c")
    assert merge(("a", "a", "a"), ("a", "a")) == ("aa", "a")
    assert merge(("a",), ("a", "a")) == ("a",)


def test_enough_merges_make_every_word_one_piece(tok):
    captions = scenes.sample(300, seed=1)[1]
    for word in {word for text in captions for word in text.split()}:
        assert tok.tokenize(word) == [word + "</w>"]


@pytest.mark.parametrize("word", ["motorhorse", "unicorn", "moonmoon", "z"])
def test_tokenizer_applies_the_merges_in_order(tok, word):
    pieces = (*word[:-1], word[-1] + "</w>")
    for pair in learn_merges(Counter(w for t in scenes.sample(300, seed=1)[1] for w in t.split()), 1000):
        pieces = merge(pieces, pair)
    assert tok.tokenize(word) == list(pieces)


def test_byte_letters_are_the_librarys():
    assert len(byte_letters()) == 256
    assert set(byte_letters()) == set(ByteLevel.alphabet())
    letters = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é €\n")[0][0]
    assert letters == "".join(byte_letters()[b] for b in "é €\n".encode())


@pytest.mark.parametrize("text", ["a café", "ein bär", "馬", "🐎 riding", "don't!", "Horse, HORSE"])
def test_any_text_has_tokens_and_none_is_unknown(tok, text):
    ids = tok(text).input_ids
    assert tok.unk_token_id not in ids[1:-1]
    assert tok.decode(ids[1:-1]).replace(" ", "") == text.lower().replace(" ", "")


def test_tokenize_fills_and_cuts(tok):
    tokens = tokenize(tok, ["", PROMPT, PROMPT + " and" * 40])
    assert tokens.shape == (3, LENGTH)
    assert (tokens[:, 0] == tok.bos_token_id).all()
    assert (tokens[:, -1] == tok.eos_token_id).all()
    assert (tokens[0, 1:] == tok.eos_token_id).all()
    assert (tokens[2, 1:-1] != tok.eos_token_id).all()


# ---------------------------------------------------------------- towers


def test_sizes_agree(tok, clip):
    text = clip.config.text_config
    assert text.vocab_size == len(tok)
    assert text.max_position_embeddings == tok.model_max_length == LENGTH
    assert (text.bos_token_id, text.eos_token_id) == (tok.bos_token_id, tok.eos_token_id)
    assert text.eos_token_id != 2  # which would switch to an old pooling


def test_embeddings_have_length_one_and_are_the_librarys(clip, tok, some):
    pictures, captions = some
    tokens = tokenize(tok, captions)
    theirs = clip(input_ids=tokens, pixel_values=pictures)
    torch.testing.assert_close(embed_text(clip, tokens), theirs.text_embeds)
    torch.testing.assert_close(embed_pictures(clip, pictures), theirs.image_embeds)
    torch.testing.assert_close(embed_text(clip, tokens).norm(dim=-1), torch.ones(8))


def test_the_filling_after_the_end_changes_nothing(clip, tok):
    short = tok(PROMPT, return_tensors="pt").input_ids
    torch.testing.assert_close(embed_text(clip, short), embed_text(clip, tokenize(tok, [PROMPT])))


# ---------------------------------------------------------------- loss


def test_loss_is_the_librarys(clip, tok, some):
    pictures, captions = some
    tokens = tokenize(tok, captions)
    theirs = clip(input_ids=tokens, pixel_values=pictures, return_loss=True).loss
    torch.testing.assert_close(clip_loss(clip, pictures, tokens), theirs)


def test_loss_is_the_mean_log_probability_of_the_right_answer():
    text, pictures, scale = unit(5, 6, seed=1), unit(5, 6, seed=2), 3.0
    total = 0
    for i in range(5):
        s = [scale * float(text[i] @ pictures[j]) for j in range(5)]
        u = [scale * float(text[j] @ pictures[i]) for j in range(5)]
        total -= s[i] - math.log(sum(map(math.exp, s))) + u[i] - math.log(sum(map(math.exp, u)))
    got = contrastive_loss(text, pictures, torch.tensor(scale).log())
    torch.testing.assert_close(got, torch.tensor(total / 10))


def test_loss_at_its_ends():
    text, pictures = unit(7, 4, seed=1), unit(7, 4, seed=2)
    blind = contrastive_loss(text, pictures, torch.tensor(-50.0))  # scale 0
    torch.testing.assert_close(blind, torch.tensor(math.log(7)))
    assert contrastive_loss(text, text, torch.tensor(1000.0).log()) < 1e-4  # perfect, and sure of it
    torch.testing.assert_close(
        contrastive_loss(text, pictures, torch.tensor(1.0)), contrastive_loss(pictures, text, torch.tensor(1.0))
    )


def test_loss_pulls_the_right_pairs_and_pushes_the_others():
    text, pictures = unit(6, 4, seed=1), unit(6, 4, seed=2)
    similarity = (text @ pictures.T).requires_grad_()
    contrastive_loss(similarity, torch.eye(6), torch.tensor(1.0)).backward()
    right = torch.eye(6, dtype=torch.bool)
    assert (similarity.grad[right] < 0).all() and (similarity.grad[~right] > 0).all()


def test_equal_captions_are_not_negatives():
    text = torch.eye(4)[[0, 0, 1, 2]]
    same, log_scale = (text @ text.T) == 1, torch.tensor(100.0).log()
    torch.testing.assert_close(contrastive_loss(text, text, log_scale), torch.tensor(math.log(2) / 2))
    assert contrastive_loss(text, text, log_scale, same) < 1e-6
    alone = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(text, text, log_scale, alone), contrastive_loss(text, text, log_scale))


def test_clip_loss_finds_the_equal_captions(clip, tok, some):
    pictures, captions = some
    tokens = tokenize(tok, captions)
    assert clip_loss(clip, pictures, tokens[:1].expand(8, -1)) < 1e-6  # nobody is left to be confused with
    twice = tokens[[0, 0, *range(2, 8)]]
    naive = clip(input_ids=twice, pixel_values=pictures, return_loss=True).loss
    assert clip_loss(clip, pictures, twice) < naive


def test_loss_says_which_shapes_it_wants():
    with pytest.raises(ValueError, match=r"pictures must have shape \(3, 4\); got \(2, 4\)"):
        contrastive_loss(torch.ones(3, 4), torch.ones(2, 4), torch.tensor(0.0))


def test_the_u_net_gets_what_the_last_layer_but_two_makes(tok, clip):
    tokens, tower = tokenize(tok, ["a cat riding a horse", ""]), clip.text_model
    states = tower(tokens, output_hidden_states=True).hidden_states
    ours = text_encoder_of(clip)(tokens).last_hidden_state
    torch.testing.assert_close(ours, tower.final_layer_norm(states[-3]))
    assert not torch.allclose(ours, tower(tokens).last_hidden_state, atol=0.1)


def test_looks_at_other_words_are_struck_out_in_training_only(tok):
    clip, tokens = new_clip(tok, dropout=0.3), tokenize(tok, ["a cat riding a horse in the snow"])
    torch.testing.assert_close(embed_text(clip, tokens), embed_text(clip, tokens), rtol=0, atol=0)
    clip.train()
    assert (embed_text(clip, tokens) != embed_text(clip, tokens)).any()


def test_eight_pairs_are_learnt_by_heart(tok, some):
    pictures, captions = some
    tokens = tokenize(tok, captions)
    torch.manual_seed(0)
    clip = new_clip(tok)
    losses = fit(clip, clip_loss, lambda generator: (pictures, tokens), steps=40, lr=1e-3, warmup=5)
    assert losses[-1] < 0.1
    assert retrieval(clip, pictures, tokens) == 1
    assert retrieval(clip, pictures, tokens.roll(1, 0)) == 0


# ---------------------------------------------------------------- the shipped model


def test_shipped_clip_finds_captions_it_has_never_seen():
    pictures, captions, _ = scenes.sample(64, seed=7)
    tokens = tokenize(parts.load_tokenizer(), captions)
    assert retrieval(parts.load_clip(), scenes.to_tensor(pictures), tokens) > 0.7


# ---------------------------------------------------------------- exercises


def raises(*_):
    raise NotImplementedError


def fair(text, pictures, log_scale, same, fill=float("-inf"), diagonal=False):
    out = same if diagonal else same & ~torch.eye(len(text), dtype=torch.bool)
    logits = (log_scale.exp() * text @ pictures.T).masked_fill(out, fill)
    right = torch.arange(len(text))
    return F.cross_entropy(logits, right), F.cross_entropy(logits.T, right)


def blind(text, pictures, log_scale):
    """`fair` that does not look for equal captions."""
    return fair(text, pictures, log_scale, torch.zeros(len(text), len(text), dtype=torch.bool))


def vectors(clip, tokenizer, sentences):
    return [embed_text(clip, tokenize(tokenizer, some)) for some in sentences]


def raw(clip, tokenizer, sentences):
    return [clip.get_text_features(tokenize(tokenizer, some)).pooler_output for some in sentences]


def means(classes):
    return torch.stack([some.mean(0) for some in classes])


def over_sentences(classes):
    return [F.normalize(some, dim=0) for some in classes]


def step(pieces, words, join=merge, choose=max):
    met = count_pairs(pieces, words)
    pair = choose(sorted(met), key=met.get)
    return {word: join(split, pair) for word, split in pieces.items()}


def join_first(split, pair):
    i = next((i for i in range(len(split)) if split[i : i + 2] == pair), None)
    return split if i is None else (*split[:i], "".join(pair), *split[i + 2 :])


def join_overlapping(split, pair):
    """Keeps the second of a pair as the first of the next."""
    out = []
    for i in range(len(split)):
        if split[i : i + 2] == pair:
            out.append("".join(pair))
        elif split[max(0, i - 1) : i + 1] != pair:
            out.append(split[i])
    return tuple(out)


def step_without_order(pieces, words):
    """Of pairs that meet equally often it takes the one that it met first."""
    met = count_pairs(pieces, words)
    return {word: merge(split, max(met, key=met.get)) for word, split in pieces.items()}


def join_as_text(split, pair):
    """Joins the end of a longer piece, too."""
    return tuple(" ".join(split).replace(" ".join(pair), "".join(pair)).split())


def step_in_place(pieces, words):
    pieces.update(step(pieces, words))
    return pieces


def step_on_letters(pieces, words):
    letters = {word: (*word[:-1], word[-1] + "</w>") for word in pieces}
    met = count_pairs(letters, words)
    return {word: merge(split, max(sorted(met), key=met.get)) for word, split in pieces.items()}


def step_changed_words_only(pieces, words):
    return {word: split for word, split in step(pieces, words).items() if split != pieces[word]}


def found(text, pictures, k, largest=True):
    nearest = (pictures @ text.T).topk(k, largest=largest).indices
    return nearest == torch.arange(len(text))[:, None]


CASES = [
    (check_similarity, raises, "1.1 not tried yet"),
    (check_similarity, lambda t, p: F.cosine_similarity(t[:, None], p[None], dim=-1), "1.1 ok"),
    (check_similarity, lambda t, p: None, "return"),
    (check_similarity, lambda t, p: t @ p.T, "dot products"),
    (check_similarity, lambda t, p: F.normalize(p, dim=-1) @ F.normalize(t, dim=-1).T, "other way round"),
    (check_similarity, lambda t, p: F.normalize(t, dim=0) @ F.normalize(p, dim=0).T, "dim=-1"),
    (check_similarity, lambda t, p: F.normalize(t, dim=-1) @ p.T, "only the captions"),
    (check_similarity, lambda t, p: F.normalize(t, dim=-1) @ F.normalize(p, dim=0).T, "of the pictures, too"),
    (check_similarity, lambda t, p: (t @ p.T).diag(), "row i with row i only"),
    (check_similarity, F.cosine_similarity, "row i with row i only"),
    (check_similarity, lambda t, p: F.normalize(t, dim=-1) @ F.normalize(p, dim=-1).T[:, :2], "wanted shape (3, 4)"),
    (check_loss, raises, "1.2 not tried yet"),
    (check_loss, lambda *a: sum(blind(*a)) / 2, "1.2 ok"),
    (check_loss, lambda t, p, s: image_text_contrastive_loss(s.exp() * t @ p.T), "1.2 ok"),
    (check_loss, lambda *a: None, "return"),
    (check_loss, lambda *a: sum(blind(*a)), "averaged, not added"),
    (check_loss, lambda *a: blind(*a)[0], "each picture must find its caption"),
    (check_loss, lambda *a: blind(*a)[1], "each caption must find its picture"),
    (check_loss, lambda *a: -sum(blind(*a)) / 2, "the sign is flipped"),
    (check_loss, lambda t, p, s: sum(blind(t, p, 0 * s)) / 2, "the scale is missing"),
    (check_loss, lambda t, p, s: sum(blind(t, p, s.log())) / 2, "use its exponential"),
    (check_loss, lambda t, p, s: sum(blind(t, p, -s)) / 2, "multiply by the scale"),
    (check_loss, lambda *a: 5 * sum(blind(*a)) / 2, "not the sum"),
    (check_loss, lambda t, p, s: s.exp() * t @ p.T, "wanted shape ()"),
    (check_fair_loss, raises, "1.3 not tried yet"),
    (check_fair_loss, lambda *a: sum(fair(*a)) / 2, "1.3 ok"),
    (check_fair_loss, lambda *a: sum(fair(*a)), "averaged, not added"),
    (check_fair_loss, lambda *a: fair(*a)[0], "each picture must find its caption"),
    (check_fair_loss, lambda *a: fair(*a)[1], "each caption must find its picture"),
    (check_fair_loss, lambda t, p, s, same: contrastive_loss(t, p, s), "equal captions still take part"),
    (check_fair_loss, lambda t, p, s, same: (fair(t, p, s, same)[0] + blind(t, p, s)[1]) / 2, "count in the columns"),
    (check_fair_loss, lambda t, p, s, same: (blind(t, p, s)[0] + fair(t, p, s, same)[1]) / 2, "count in the rows"),
    (check_fair_loss, lambda *a: -sum(fair(*a)) / 2, "the sign is flipped"),
    (check_fair_loss, lambda t, p, s, same: sum(fair(t, p, 0 * s, same)) / 2, "the scale is missing"),
    (check_fair_loss, lambda *a: 5 * sum(fair(*a)) / 2, "not the sum"),
    (check_fair_loss, lambda t, p, s, same: sum(fair(t, p, s.log(), same)) / 2, "use its exponential"),
    (check_fair_loss, lambda t, p, s, same: sum(fair(t, p, -s, same)) / 2, "multiply by the scale"),
    (check_fair_loss, lambda *a: sum(fair(*a, fill=0.0)) / 2, "masked 0"),
    (check_fair_loss, lambda *a: sum(fair(*a, diagonal=True)) / 2, "not a finite number"),
    (check_fair_loss, lambda t, p, s, same: sum(fair(t, p, s, same.triu())) / 2, "still count below the diagonal"),
    (check_fair_loss, lambda t, p, s, same: sum(fair(t, p, s, same.tril())) / 2, "still count above the diagonal"),
    (check_class_vectors, raises, "1.5 not tried yet"),
    (check_class_vectors, lambda *a: F.normalize(torch.stack([v.sum(0) for v in vectors(*a)]), dim=-1), "1.5 ok"),
    (check_class_vectors, lambda *a: torch.stack([v.mean(0) for v in vectors(*a)]), "normalise once more"),
    (check_class_vectors, lambda *a: torch.stack([v[0] for v in vectors(*a)]), "the first sentence"),
    (check_class_vectors, lambda *a: torch.cat(vectors(*a)).mean(0), "one vector for each class"),
    (check_class_vectors, lambda *a: vectors(*a), "wanted a tensor; got list"),
    (check_class_vectors, lambda *a: F.normalize(means(raw(*a)), dim=-1), "before you average"),
    (check_class_vectors, lambda *a: F.normalize(means(vectors(*a)), dim=0), "class vector is taken over the last"),
    (check_class_vectors, lambda *a: F.normalize(means(over_sentences(raw(*a))), dim=-1), "sentence's vector is taken"),
    (check_class_vectors, lambda *a: F.normalize(means(over_sentences(vectors(*a))), dim=-1), "length 1 already"),
    (check_merge_step, raises, "1.4 not tried yet"),
    (check_merge_step, step, "1.4 ok"),
    (check_merge_step, lambda p, w: None, "return"),
    (check_merge_step, step_in_place, "changes `pieces`"),
    (check_merge_step, lambda p, w: step(p, dict.fromkeys(w, 1)), "counted once per word"),
    (check_merge_step, lambda p, w: step(p, w, choose=min), "you joined ("),
    (check_merge_step, step_without_order, "meet equally often"),
    (check_merge_step, lambda p, w: step(p, w, join_first), "more than once"),
    (
        check_merge_step,
        lambda p, w: step(p, w, join_overlapping),
        "must spell oooh</w>, no letter twice; got oo",
    ),
    (check_merge_step, lambda p, w: step(p, w, join_as_text), "only whole pieces are joined"),
    (check_merge_step, step_on_letters, "nothing new was joined"),
    (check_merge_step, lambda p, w: step(step(p, w), w), "one pair only"),
    (check_merge_step, step_changed_words_only, "all words are to be in the answer"),
    (check_merge_step, lambda p, w: {k: list(v) for k, v in step(p, w).items()}, "tuple, as before; 'cat' has a list"),
    (check_merge_step, lambda p, w: list(step(p, w).values()), "wanted a dictionary, word -> pieces; got list"),
    (check_merge_step, lambda p, w: {k: v[::-1] for k, v in step(p, w).items()}, "must spell cat</w>"),
    (check_found, raises, "1.6 not tried yet"),
    (check_found, lambda *a: found(*a).any(1), "1.6 ok"),
    (check_found, lambda t, p, k: ((p @ t.T).argsort(1).argsort(1) >= len(t) - k).diag(), "1.6 ok"),
    (check_found, lambda t, p, k: None, "return"),
    (check_found, lambda *a: found(*a).any(1).float().mean(), "one answer for each picture, True or False"),
    (check_found, lambda *a: found(*a).any(1).float().mean().item(), "one answer for each picture, True or False"),
    (check_found, lambda *a: found(*a), "`any(1)`"),
    (check_found, lambda t, p, k: found(p, t, k).any(1), "each caption looks for its picture"),
    (check_found, lambda t, p, k: found(t, p, 1).any(1), "only the very nearest"),
    (check_found, lambda *a: found(*a, largest=False).any(1), "*least* like"),
    (check_found, lambda t, p, k: found(t, p, k + 1).any(1), "one too many"),
    (check_found, lambda *a: ~found(*a).any(1), "turn it round"),
    (check_found, lambda *a: found(*a).any(1).tolist(), "wanted a tensor; got list"),
]


@pytest.mark.parametrize(("check", "answer", "said"), CASES)
def test_checks_say_what_is_wrong(check, answer, said, capsys):
    assert check(answer) is None
    out = capsys.readouterr().out
    assert said in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "check", [check_similarity, check_loss, check_fair_loss, check_class_vectors, check_merge_step, check_found]
)
def test_a_crash_keeps_its_traceback(check):
    with pytest.raises(ZeroDivisionError):
        check(lambda *a: 1 / 0)


@pytest.mark.parametrize(
    ("check", "answer", "said"),
    [
        (check_found, lambda t, p, k: ((p @ t.T).topk(k).indices == torch.arange(len(t))).any(1), "[:, None]"),
        (check_class_vectors, lambda *a: F.normalize(torch.stack(vectors(*a)).mean(1), dim=-1), "numbers of sentences"),
    ],
)
def test_checks_say_what_does_not_fit(check, answer, said, capsys):
    with pytest.raises(RuntimeError):
        check(answer)
    assert said in capsys.readouterr().out
