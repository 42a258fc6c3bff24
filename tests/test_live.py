"""The live page's modules, in node, against Python: tokens, noise, schedulers, weights, settings, sentences."""

import itertools
import json
import math
import random
import re
import runpy
import shutil
import struct
import unicodedata

import pytest
import torch
from live_site import LIVE, NODE, ask
from safetensors.torch import save_file

from sdlearn import parts, scenes
from sdlearn.clip import new_tokenizer, tokenize
from sdlearn.sampling import guide
from sdlearn.tools.draw import advise

pytestmark = pytest.mark.skipif(not NODE, reason="no node: the live page's modules are not tried")
TOKENIZER = str(parts.MINI / "tokenizer" / "tokenizer.json")
LENGTH = parts.load_tokenizer().model_max_length
GROUPS = scenes.WORDS | {"action": sum(scenes.WORDINGS.values(), ())}
ODD = " \t\n\x00'-!?.<|>&;\"/\\_9aàÀéßİıΣσςǅ①Ⅷ٣漢字日本語ñ\u0301\u200b\u200d\ufeff\x85\u3000\N{GRINNING FACE}"
OLD = [c for c in map(chr, range(0x20000)) if unicodedata.ucd_3_2_0.category(c) not in ("Cn", "Cs", "Co")]
HARD = [
    "",
    " ",
    "a <|endoftext|> b<|startoftext|>",
    "<|StartOfText|>>x!<|STARTOFTEXT|>'s",
    "it's WE'LL I'm they'RE 's''s 'tis",
    "<script>alert(1)</script>",
    "x" * 3000,
    "cat " * 1000,
    "e\u0301 \N{FAMILY} ΟΔΟΣ",
]


def texts(n, seed):
    """Captions, their letters shuffled, odd characters, and any that every library's Unicode has known for long."""
    rng = random.Random(seed)
    _, captions, _ = scenes.sample(n // 4, seed)
    shuffled = ["".join(rng.sample(caption, len(caption))) for caption in captions]
    odd = ["".join(rng.choice(ODD + "acehorst") for _ in range(rng.randint(1, 40))) for _ in captions]
    any_ = ["".join(rng.choices(OLD, k=rng.randint(1, 12))) for _ in captions]
    return [*HARD, *captions, *shuffled, *odd, *any_]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """The shipped one, and one that learnt other words."""
    folder = tmp_path_factory.mktemp("tokenizer")
    other = new_tokenizer(["the old fox", "a blue whale in the deep blue sea", "İt'S 9 o'clock"])
    tokenize(other, ["a fox"])
    other.save_pretrained(folder)
    return [(parts.load_tokenizer(), TOKENIZER), (other, str(folder / "tokenizer.json"))]


def test_a_thousand_texts_become_the_same_tokens_as_in_python(tokenizers):
    for tokenizer, file in tokenizers:
        all_of_them = texts(2000, seed=0)
        got = ask("tokens", file=file, length=LENGTH, texts=all_of_them)
        want = tokenize(tokenizer, all_of_them).tolist()
        assert len(all_of_them) >= 1000
        assert [text for text, a, b in zip(all_of_them, got, want, strict=True) if a["ids"] != b] == []


def test_tokens_are_shown_as_people_read_them():
    (got,) = ask("tokens", file=TOKENIZER, length=LENGTH, texts=["An astronaut, zé!"])
    assert got["shown"] == ["an", "astronaut", ",", "z", "▫", "▫", "!"]


def test_a_hundred_seeds_give_torchs_noise():
    rng = random.Random(0)
    seeds, sizes = [*range(50), *(rng.randrange(2**32) for _ in range(49)), 2**32 - 1], [256, 16, 17, 31, 640]
    for seed, got in zip(seeds, ask("noise", seeds=seeds, sizes=sizes), strict=True):
        generator = torch.Generator().manual_seed(seed)
        for n, x in zip(sizes, got, strict=True):
            torch.testing.assert_close(torch.tensor(x), torch.randn(n, generator=generator), atol=2e-6, rtol=1e-5)


def test_fewer_than_sixteen_numbers_are_refused_since_torch_draws_them_in_another_way():
    assert ask("noise", seeds=[0], sizes=[15]) == [[{"refused": "randn draws 16 numbers or more; got 15"}]]


# ---------------------------------------------------------------- schedulers


MEAN, DEVIATION = 0.7, 0.4
LINEAR = {"set_alpha_to_one": True, "beta_schedule": "linear", "steps_offset": 0}
MORE = [{}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}, LINEAR]


def loop(name, config, steps, x):
    """Diffusers' scheduler with the exact noise: timesteps, the last x, and every estimate of the clean latents."""
    scheduler, clean = parts.make_scheduler(name, config), []
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod.double()[t]
        eps = (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * DEVIATION**2 + 1 - a)
        clean.append((x - (1 - a).sqrt() * eps) / a.sqrt())
        x = scheduler.step(eps, t, x).prev_sample
    return scheduler.timesteps.tolist(), x, torch.stack(clean)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_schedulers_go_diffusers_way_whatever_the_number_of_steps(name):
    config = {key: value for key, value in parts.load_scheduler(parts.MINI).config.items() if key[0] != "_"}
    x = torch.randn(16, dtype=torch.float64)
    cases = [(steps, more) for more in MORE for steps in (*range(1, 21), 25, 30, 37, 50, 64, 99, 100)]
    cases = [case for case in cases if case[0] <= 40 or "trailing" not in case[1].values()]  # numpy counts one too many
    loops = [{"name": name, "steps": steps, "x": x.tolist(), "more": more} for steps, more in cases]
    answers = ask("loops", loops=loops, config=config, mean=MEAN, deviation=DEVIATION)
    for (steps, more), got in zip(cases, answers, strict=True):
        timesteps, last, clean = loop(name, config | more, steps, x)
        assert got["timesteps"] == timesteps, (steps, more)
        torch.testing.assert_close(torch.tensor(got["x"], dtype=torch.float64), last, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.tensor(got["clean"], dtype=torch.float64), clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0, 1, 4.5])
def test_guidance_is_the_formula(scale):
    empty, text = torch.randn(2, 8, dtype=torch.float64)
    got = ask("guided", empty=empty.tolist(), text=text.tolist(), scale=scale)
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), guide(empty, text, scale))


# ---------------------------------------------------------------- weights


def test_weights_of_every_precision_are_read_to_the_last_bit(tmp_path):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)  # every half there is
    tensors = {
        "half": bits.view(torch.float16),
        "brain": bits.clone().view(torch.bfloat16),
        "whole": torch.randn(2, 3, 5),
    }
    tensors |= {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    (got,) = ask("tensors", files=[str(tmp_path / "x.safetensors")])
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        values = torch.tensor([float(value.replace("Infinity", "inf")) for value in got[name]["values"]])
        assert got[name]["shape"] == list(tensor.shape)
        torch.testing.assert_close(values, tensor.float().flatten(), atol=0, rtol=0, equal_nan=True)


def damaged(whole):
    """Files that are not what they should be."""
    header = json.loads(whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]])

    def with_header(**changed):
        text = json.dumps(header | {"x": header["x"] | changed}).encode()
        return struct.pack("<Q", len(text)) + text + whole[-16:]

    yield "empty", b""
    yield "one byte", b"x"
    yield "a pickle", b"PK\x03\x04" + bytes(100)
    yield "cut in the header", whole[:20]
    yield "cut in the numbers", whole[:-1]
    yield "a header longer than the file", struct.pack("<Q", 2**40) + whole[8:]
    yield "a header longer than any number", struct.pack("<Q", 2**64 - 1) + whole[8:]
    yield "a header that is no JSON", whole[:8] + b"[" + whole[9:]
    yield "integers", with_header(dtype="I32")
    yield "a wrong shape", with_header(shape=[5])
    yield "offsets beyond the end", with_header(data_offsets=[16, 32])
    yield "offsets before the start", with_header(data_offsets=[-1000, -984])
    yield "backward offsets", with_header(data_offsets=[16, 0])
    yield "no offsets", with_header(data_offsets=None)


def test_damaged_weights_are_refused(tmp_path):
    save_file({"x": torch.randn(4)}, tmp_path / "whole")
    cases = dict(damaged((tmp_path / "whole").read_bytes()))
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    answers = ask("tensors", files=[str(tmp_path / name) for name in ["whole", *cases]])
    assert "refused" not in answers[0]
    assert [name for name, answer in zip(cases, answers[1:], strict=True) if "refused" not in answer] == []


# ---------------------------------------------------------------- downloads, with half a minute made a second


SLOW = [[100, 10]] * 15 + [[0, "end"]]


def test_a_file_that_waits_for_a_large_one_is_waited_for():
    late = [[1400, 5], [0, "end"]]
    got = ask("downloads", files={"/large": SLOW, "/late": late}, sizes={"/large": 150, "/late": 5})
    assert got == {"lengths": [150, 5], "last": [155, 155]}


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([[0, 40]], "the download stopped at 0.0 of 0.0 MB (nothing came for half a minute)"),
        ([], "the download stopped at 0.0 of 0.0 MB (nothing came for half a minute)"),
        ([[0, 99], [0, "end"]], "the download stopped at 0.0 of 0.0 MB (/file is not 100 bytes long)"),
        ([[0, 101], [0, "end"]], "the download stopped at 0.0 of 0.0 MB (/file is not 100 bytes long)"),
    ],
)
def test_a_download_that_stops_or_does_not_fit_is_told_in_one_line(chunks, said):
    assert ask("downloads", files={"/file": chunks}, sizes={"/file": 100}) == {"refused": said}


def test_a_list_of_files_that_does_not_come_is_told_in_one_line():
    nothing = {"refused": "the download could not start (nothing came for half a minute)"}
    assert ask("lists", files={"/files.json": []}) == nothing
    assert ask("lists", files={"/files.json": [[0, 2]]}) == nothing


# ---------------------------------------------------------------- settings and links


DEFAULT = {"prompt": "a cat", "negative": "", "seed": 0, "guidance": 4, "steps": 30, "scheduler": "ddim"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"seed": "seven"}, 'seed must be a whole number from 0 to 4294967295; got "seven"'),
        ({"seed": ""}, 'seed must be a whole number from 0 to 4294967295; got ""'),
        ({"seed": "-1"}, 'got "-1"'),
        ({"seed": "1.5"}, 'got "1.5"'),
        ({"seed": str(2**32)}, 'got "4294967296"'),
        ({"seed": "NaN"}, 'got "NaN"'),
        ({"steps": "0"}, 'steps must be a whole number from 1 to 100; got "0"'),
        ({"steps": "1e9"}, 'got "1e9"'),
        ({"guidance": "Infinity"}, 'guidance must be a number from 0 to 15; got "Infinity"'),
        ({"scheduler": "constructor"}, 'scheduler must be ddim or dpm++; got "constructor"'),
        ({"scheduler": "x" * 10000}, 'got "' + "x" * 40 + '"'),
    ],
)
def test_settings_that_make_no_picture_are_told_in_one_line(typed, message):
    (got,) = ask("settings", typed=[DEFAULT | typed])
    assert message in got["refused"] and "\n" not in got["refused"] and len(got["refused"]) < 150


def test_settings_are_numbers_once_they_are_checked():
    typed = {"seed": " 7 ", "steps": "100", "guidance": "0.5", "scheduler": "dpm++"}
    assert ask("settings", typed=[typed | {"prompt": "a cat"}])[0] == DEFAULT | {
        "seed": 7, "steps": 100, "guidance": 0.5, "scheduler": "dpm++"
    }  # fmt: skip


def test_a_link_holds_all_settings_whatever_the_prompt_and_those_of_the_picture_beside_it():
    one = DEFAULT | {"prompt": "a & b=c #d +e%20 <b>\N{GRINNING FACE}", "negative": "é", "scheduler": "dpm++"}
    as_text = {name: str(value) for name, value in one.items()}
    two = as_text | {"seed": "9", "prompt": "the other"}
    got = ask("links", pairs=[[as_text, None], [as_text, two], [as_text, as_text]])
    assert got == [{"settings": as_text, "beside": other} for other in (None, two, as_text)]


def test_a_link_holds_of_the_picture_beside_it_only_what_differs():
    as_text = {name: str(value) for name, value in DEFAULT.items()}  # what the form has; a picture has numbers
    answers = ask("hashed", pairs=[[as_text, beside] for beside in (DEFAULT | {"steps": 5}, DEFAULT)])
    assert [re.findall(r"beside\.(\w+=\w+)", got) for got in answers] == [["steps=5"], ["seed=0"]]


def test_a_link_with_other_things_in_it_is_read_without_them():
    got = ask("hashes", hashes=["", "#", "#seed=3&evil=1&beside.evil=2&__proto__=x&beside.__proto__=y", "#%E0%A4%A"])
    assert got[:3] == [{"settings": settings, "beside": None} for settings in ({}, {}, {"seed": "3"})]
    assert got[3]["beside"] is None


# ---------------------------------------------------------------- sentences


def every_scene():
    names = [name for name in scenes.WORDS]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*scenes.WORDS.values())]


def test_the_page_reads_every_caption_and_builds_it_as_python_does():
    rng = random.Random(0)
    chosen = rng.sample(every_scene(), 200)
    captions = [scenes.caption(scene) for scene in chosen]
    parsed = ask("parsed", prompts=[caption.upper() + " " for caption in captions], groups=GROUPS)
    assert parsed == [{"found": scene, "plain": True} for scene in chosen]
    changed, clicks = [], []
    for scene, caption in zip(chosen, captions, strict=True):
        group = rng.choice([*scenes.WORDS])
        value = rng.choice([value for value in scenes.WORDS[group] if value != scene[group]])
        clicks.append([caption, group, value])
        changed.append(scenes.caption(scene | {group: value}))
    assert ask("toggled", clicks=clicks, groups=GROUPS) == changed


@pytest.mark.parametrize(
    ("prompt", "group", "phrase", "after"),
    [
        ("a cat riding a red horse", "colour", "red", "a cat riding a horse"),
        ("a cat riding a horse", "colour", "blue", "a cat riding a blue horse"),
        ("a cat", "style", "painting", "a painting of a cat"),
        ("a painting of a cat", "style", "painting", "a cat"),
        ("", "subject", "astronaut", "an astronaut"),
        ("a cat and a dog on the moon", "place", "by the sea", "a cat and a dog by the sea"),
        ("two dogs", "place", "by the sea", "two dogs by the sea"),
        ("a cat and a dog on the  moon", "place", "on the moon", "a cat and a dog"),
        ("<b>cat", "other", "wizard", "<b>cat wizard"),
        ("a wizard", "other", "castle", "a wizard castle"),
        ("a Wizard castle", "other", "wizard", "a castle"),
        ("a wizard", "colour", "red", "a wizard red"),
        ("a red wizard", "colour", "blue", "a blue wizard"),
        ("what ?? a café", "other", "??", "what a café"),
        ("what ?? a café", "other", "café", "what ?? a"),
        ("a cat, $ and all", "other", "$&", "a cat, $ and all $&"),
    ],
)
def test_a_chip_puts_its_phrase_where_it_belongs(prompt, group, phrase, after):
    groups = GROUPS | {"other": ["wizard", "castle", "??", "café", "$&"]}
    assert ask("toggled", clicks=[[prompt, group, phrase]], groups=groups) == [after]


def test_all_further_words_in_a_prompt_are_found():
    (got,) = ask("parsed", prompts=["a red castle wizard"], groups=GROUPS | {"other": ["wizard", "castle", "snail"]})
    assert got == {"found": {"colour": "red", "other": ["wizard", "castle"]}, "plain": True}


def test_chips_show_words_as_people_read_them(tmp_path):
    new_tokenizer(["un café", "日本"]).save_pretrained(tmp_path)
    got = ask("known", file=str(tmp_path / "tokenizer.json"), length=LENGTH, groups=GROUPS | {"drink": ["café"]})
    assert got == {"drink": ["café"], "other": ["un", "日本"]}


def test_chips_show_what_the_tokenizer_knows(tokenizers):
    assert ask("known", file=TOKENIZER, length=LENGTH, groups=GROUPS) == {k: [*v] for k, v in GROUPS.items()}
    (_, (_, other)) = tokenizers
    got = ask("known", file=other, length=LENGTH, groups=GROUPS)
    assert got["colour"] == ["blue"] and "style" not in got and set(got["other"]) >= {"fox", "old"}


def test_advice_is_python_s(tmp_path):
    prompts = ["a cat", "a dog with a hat", "a b", "cat " * 30, "\N{GRINNING FACE} 7", "", "Astronaut", "x " * 1000]
    prompts += ["no", "hi", "de", "馬", "straße", "no fog"]
    other = new_tokenizer(["no fog", "hi", "de", "馬 straße"])
    other.save_pretrained(tmp_path)
    for tokenizer, file in ((parts.load_tokenizer(), TOKENIZER), (other, str(tmp_path / "tokenizer.json"))):
        for prompt, got in zip(prompts, ask("advice", file=file, length=LENGTH, prompts=prompts), strict=True):
            want = advise(tokenizer, prompt)
            assert len(got) == len(want), (prompt, got, want)
            assert all(len(line) < 200 for line in got)


# ---------------------------------------------------------------- where a word was looked at


def test_a_picture_keeps_its_colours_where_the_word_was_looked_at_and_only_there():
    frame = [255, 0, 0, 255] * 64 * 64
    looked = [0.1] * 64
    looked[9] = 0.5  # row 1, column 1 of 8 x 8
    got = torch.tensor(ask("coloured", frame=frame, map=looked)).view(64, 64, 4)
    assert got[12, 12, :3].tolist() == pytest.approx([255, 0, 0], abs=40)  # the middle of that place
    red, green = got[..., 0] - got[..., 1], torch.zeros(64, 64, dtype=torch.bool)
    green[4:20, 4:20] = True
    assert (red[~green] == 0).all() and red[12, 12] > 200 and (got[..., 3] == 255).all()


def test_a_map_without_differences_is_no_crash():
    got = ask("coloured", frame=[10, 20, 30, 255] * 16, map=[0.5] * 4)
    assert len(got) == 64 and all(math.isfinite(value) for value in got)


# ---------------------------------------------------------------- the files themselves


def test_a_model_without_a_unet_of_one_step_leaves_none_from_an_earlier_build(tmp_path):
    build = runpy.run_path(str(LIVE / "build.py"))
    fast = tmp_path / "with" / build["FAST"]
    shutil.copytree(parts.MINI, tmp_path / "with", dirs_exist_ok=True)
    fast.parent.mkdir(exist_ok=True)
    fast.write_bytes(b"weights")
    shutil.copytree(tmp_path / "with", tmp_path / "without", ignore=shutil.ignore_patterns("fast"))
    for model in ("with", "without"):
        build["copy_model"](tmp_path / model, tmp_path / "page")
        assert (tmp_path / "page" / build["FAST"]).exists() == (model == "with")


def test_the_pages_files_are_short_and_ask_no_other_host():
    for file in [path for path in LIVE.iterdir() if path.suffix in (".js", ".html", ".css")]:
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 250, file.name
        assert "://" not in text and "innerHTML" not in text and "eval(" not in text, file.name
