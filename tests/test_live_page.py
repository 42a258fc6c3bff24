"""The live page in a real browser: the pictures are Python's, and whatever is typed or dropped, the page answers."""

import json
import re
import shutil

import pytest
import torch
from lab import CHROMIUM
from live_site import ISOLATED, LIBRARY, build, other_model, served
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from sdlearn import parts, scenes
from sdlearn.clip import new_tokenizer, tokenize
from sdlearn.noising import q_sample
from sdlearn.sampling import decode_latents, encode_prompts, text_to_image
from sdlearn.since_2022 import euler, velocity
from sdlearn.tools.saving import save_fast

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the live page is not tried in a browser")
for library in ("onnx", "onnxscript"):
    pytest.importorskip(library, reason=f"no {library}: the live page is not tried in a browser")


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: the live page is not tried in a browser"),
    pytest.mark.skipif(not LIBRARY.is_dir(), reason="no onnxruntime-web: npm ci --prefix docs/live --ignore-scripts"),
]
SECONDS = 120  # against a standstill: many times what any step of the page takes
ASTRONAUT = "a photograph of an astronaut riding a horse on the moon"
SHORT = "#prompt=a+cat&steps=2"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    with served(folder) as server:
        server.folder = folder
        yield server


def listen(page, said):
    """Keep what a page says on the console, but for the browser's hint to a test that reads a canvas often."""
    page.on("console", lambda message: "willReadFrequently" in message.text or said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))


@pytest.fixture
def fresh(browser):
    """Opens pages, and sees to it at the end that their consoles stayed silent and nothing went elsewhere."""
    contexts, said, asked = [], [], []

    def open_page(width=1280, height=900, script=""):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        contexts[-1].set_default_timeout(1000 * SECONDS)
        page = contexts[-1].new_page()
        page.add_init_script(script)
        listen(page, said)
        page.on("request", lambda request: asked.append(request.url))
        page.said = said
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def shared(browser, site):
    """One page, opened once, for the tests that only type and click."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.said = []
    listen(page, page.said)
    page.goto(site.address + SHORT)
    drawn(page)
    yield page
    page.close()


@pytest.fixture
def page(shared):
    shared.said.clear()
    yield shared
    assert shared.said == []


def drawn(page, figures=1):
    """Until all pictures are drawn, or a line says why not."""
    page.wait_for_selector(f"figure.whole:nth-of-type({figures}), #error:not([hidden])")
    playwright.expect(page.locator("#error")).to_be_hidden()
    playwright.expect(page.locator("#stop")).to_be_disabled(timeout=1000 * SECONDS)


def draw(page, **settings):
    """Fill the form in and draw."""
    for name, value in settings.items():
        box = page.locator(f"#{name}")
        box.select_option(value) if name in ("scheduler", "model") else box.fill(str(value))
    page.evaluate("document.querySelectorAll('figure').forEach(one => one.remove())")
    page.click("#draw")


def pixels(page, which=0):
    read = """(all, i) => { const c = all[i]
        return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data] }"""
    return torch.tensor(page.locator("canvas.picture").evaluate_all(read, which)).view(64, 64, 4)[..., :3]


def python_s(model=parts.MINI, prompt="a cat", negative="", seed=0, guidance=4.0, steps=30, scheduler="ddim"):
    found = parts.load(model, device="cpu")
    found = found._replace(scheduler=parts.make_scheduler(scheduler, found.scheduler.config))
    return torch.from_numpy(scenes.to_pictures(text_to_image(found, prompt, negative, steps, guidance, seed))[0]).int()


def is_python_s(page, **settings):
    difference = (pixels(page) - python_s(**settings)).abs()
    assert difference.max() <= 1, f"{difference.max()} of 255 apart"


def complaint(page):
    """The line in which the page says what is wrong."""
    page.wait_for_selector("#error:not([hidden])")
    line = page.text_content("#error")
    assert line and "\n" not in line and len(line) < 300
    return line


# ---------------------------------------------------------------- the same picture


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt": ASTRONAUT},
        {"prompt": "a postcard of a knight beside a green turtle by the sea", "seed": 2**32 - 1, "guidance": 7.5},
        {"prompt": "a robot riding a blue bicycle", "negative": "a painting", "steps": 8, "scheduler": "dpm++"},
        {"prompt": "", "seed": 3, "guidance": 0, "steps": 1},
        {"prompt": "ein Astronaut \N{GRINNING FACE} " + "cat " * 1000, "steps": 3},
    ],
    ids=lambda settings: settings["prompt"][:30] or "nothing",
)
def test_the_page_draws_pythons_picture(page, settings):
    draw(page, **({"negative": "", "seed": 0, "guidance": 4, "steps": 30, "scheduler": "ddim"} | settings))
    drawn(page)
    is_python_s(page, **settings)


def other_words(folder, seed):
    """A model of the same shape that knows other words: another vocabulary, and a table of tokens for it."""
    other_model(folder, seed)
    tokenizer = new_tokenizer(["a fox in a box", "a whale beside a snail"])
    tokenize(tokenizer, ["a fox"])
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    text_encoder.resize_token_embeddings(len(tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text_encoder.config, name, getattr(tokenizer, name))
    text_encoder.save_pretrained(folder / "text_encoder")
    return folder


@pytest.mark.parametrize("make", [other_model, other_words], ids=["other weights", "other words"])
def test_a_model_that_is_dropped_draws_its_own_picture_and_the_courses_goes_on(fresh, site, tmp_path, make):
    mine, page = make(tmp_path / "mine", seed=2), fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    page.set_input_files("#folder", mine)
    playwright.expect(page.locator(".settings")).to_contain_text("your model", timeout=1000 * SECONDS)
    drawn(page)
    playwright.expect(page.locator("#model option:checked")).to_have_text("yours: mine")
    draw(page, prompt="a fox riding a whale", steps=4, seed=5)
    drawn(page)
    is_python_s(page, model=mine, prompt="a fox riding a whale", steps=4, seed=5)
    assert (page.locator("#chips button", has_text="fox").count() == 1) == (make is other_words)
    draw(page, model="course")
    drawn(page)
    is_python_s(page, prompt="a fox riding a whale", steps=4, seed=5)


def test_a_folder_can_be_dropped_with_the_mouse(fresh, site, tmp_path):
    mine, page = other_model(tmp_path / "mine", seed=3), fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    mouse = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(mine)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data})
    playwright.expect(page.locator(".settings")).to_contain_text("your model", timeout=1000 * SECONDS)
    drawn(page)
    is_python_s(page, model=mine, prompt="a cat", steps=2)


def test_the_film_ends_with_the_picture_and_shows_the_estimate_before_it(page):
    draw(page, prompt="a bear riding a red horse", negative="", seed=1, guidance=4, steps=6, scheduler="ddim")
    drawn(page)
    film, last = page.locator(".film input"), pixels(page)
    moments = []
    for i in range(6):
        film.fill(str(i))
        assert f"step {i + 1} of 6, t = " in page.text_content(".film output")
        moments.append(pixels(page))
    assert (moments[-1] == last).all()
    apart = [(moment - last).float().abs().mean().item() for moment in moments]
    assert apart[0] > 2 * apart[-2] > 0  # the first guess is far from the picture, the last but one is near


def test_every_token_has_a_map_and_a_click_shows_it_large(page):
    draw(page, prompt="a bear riding a red horse", steps=4)
    drawn(page)
    words = page.locator(".words button")
    assert words.all_text_contents() == ["start", "a", "bear", "riding", "a", "red", "horse", "end"]
    whole = pixels(page)
    words.nth(2).click()
    playwright.expect(words.nth(2)).to_have_attribute("aria-pressed", "true")
    bear = pixels(page)
    words.nth(6).click()
    assert (bear != whole).any() and (pixels(page) != bear).any()
    words.nth(6).click()
    assert (pixels(page) == whole).all()


def test_with_several_threads_where_the_server_allows_them_the_picture_is_the_same(fresh, site):
    page = fresh()
    with served(site.folder, ISOLATED) as server:
        page.goto(server.address + "#prompt=a+cat&steps=5&seed=6")
        drawn(page)
        assert page.evaluate("crossOriginIsolated")
        is_python_s(page, prompt="a cat", steps=5, seed=6)


# ---------------------------------------------------------------- what is typed


MARKUP = "<img src=x onerror=\"document.title='hacked'\"><b>cat</b>"


@pytest.mark.parametrize("prompt", ["", MARKUP, "\N{FAMILY}\N{GRINNING FACE}\u202e", "word " * 1000, "x" * 10000])
def test_whatever_is_typed_is_drawn_and_never_taken_for_markup(page, prompt):
    draw(page, prompt=prompt, negative=prompt, steps=1)
    drawn(page)
    assert page.locator("main img, main b").count() == 0 and page.title() != "hacked"
    shown = page.text_content("figcaption .prompt")
    assert shown == (prompt or "(the empty prompt)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.locator("#tokens span").count() <= 40
    draw(page, negative="", prompt="a cat")
    drawn(page)


def test_words_it_never_saw_and_what_is_cut_off_are_told(page):
    page.fill("#prompt", "a dog " + "cat " * 30)
    said = page.text_content("#advice")
    assert "never seen: dog" in said and "Only the first 22 of" in said
    assert page.locator("#tokens .cut").count() > 0
    page.fill("#prompt", "a cat")
    assert page.text_content("#advice") == ""


@pytest.mark.parametrize("seed", ["seven", "", "-1", "1.5", str(2**32), "\N{GRINNING FACE}"])
def test_a_seed_that_is_no_number_is_told_and_nothing_is_drawn(page, seed):
    before = pixels(page)
    page.fill("#seed", seed)
    page.click("#draw")
    assert f'seed must be a whole number from 0 to 4294967295; got "{seed}"' in complaint(page)
    assert (pixels(page) == before).all()
    draw(page, seed=0, steps=1)
    drawn(page)


def test_a_chip_changes_the_sentence(page):
    page.fill("#prompt", "a photograph of a cat riding a horse")
    page.get_by_role("button", name="astronaut", exact=True).click()
    page.get_by_role("button", name="blue", exact=True).click()
    page.get_by_role("button", name="in the snow", exact=True).click()
    assert page.input_value("#prompt") == "a photograph of an astronaut riding a blue horse in the snow"
    assert page.locator("#chips [aria-pressed=true]").all_text_contents() == [
        "photograph", "astronaut", "riding", "blue", "horse", "in the snow"
    ]  # fmt: skip


def test_stop_stops_and_the_next_picture_is_whole(page):
    draw(page, prompt="a cat", steps=100)
    page.wait_for_selector("figure")
    page.click("#stop")
    playwright.expect(page.locator("#status")).to_contain_text("Stopped after")
    frames = page.locator(".film input").input_value()
    page.wait_for_timeout(500)
    assert page.locator(".film input").input_value() == frames and int(frames) < 99
    draw(page, steps=2)
    drawn(page)
    is_python_s(page, prompt="a cat", steps=2)


def test_a_second_click_begins_afresh(page):
    draw(page, prompt="a cat", steps=60)
    page.wait_for_selector("figure")
    draw(page, prompt="a knight", steps=2)
    drawn(page)
    is_python_s(page, prompt="a knight", steps=2)


# ---------------------------------------------------------------- links, tabs, going back


def test_a_link_opens_with_its_settings_and_the_picture_beside(fresh, site):
    page = fresh()
    page.goto(site.address + "#prompt=a+knight&seed=4&steps=2&guidance=2&scheduler=dpm%2B%2B&beside.seed=5")
    drawn(page, figures=2)
    settings = {"prompt": "a knight", "steps": 2, "guidance": 2, "scheduler": "dpm++"}
    for i, seed in enumerate((5, 4)):
        assert (pixels(page, i) - python_s(seed=seed, **settings)).abs().max() <= 1
    assert page.locator(".settings strong").all_text_contents() == ["seed 5", "seed 4"]
    page.click("#release")
    assert page.locator("figure").count() == 1
    playwright.expect(page.locator(".settings strong")).to_have_count(0)


def test_two_settings_stand_side_by_side_and_the_address_holds_both(fresh, site):
    page = fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    page.click("#keep")
    page.fill("#guidance", "0")
    page.click("#draw")
    drawn(page, figures=2)
    assert (pixels(page, 0) != pixels(page, 1)).any()
    again = fresh()
    again.goto(page.url)
    drawn(again, figures=2)
    assert all((pixels(page, i) == pixels(again, i)).all() for i in (0, 1))


def test_back_and_forward_bring_the_settings_back(fresh, site):
    page = fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    first = pixels(page)
    draw(page, prompt="a knight", seed=8)
    drawn(page)
    second = pixels(page)
    for go, want, prompt in ((page.go_back, first, "a cat"), (page.go_forward, second, "a knight")):
        page.evaluate("document.querySelectorAll('figure').forEach(one => one.remove())")
        go()
        drawn(page)
        assert page.input_value("#prompt") == prompt and (pixels(page) == want).all()


def test_a_link_with_nonsense_is_told_and_can_be_mended(fresh, site):
    page = fresh()
    page.goto(site.address + "#prompt=a+cat&steps=1000000&seed=0")  # a slider cannot hold it
    page.wait_for_selector("figure.whole, #error:not([hidden])")
    page.goto(site.address + "#prompt=a+cat&steps=2&seed=xyz")
    assert 'got "xyz"' in complaint(page)
    draw(page, seed=1)
    drawn(page)


def test_two_tabs_draw_at_once_and_a_tab_that_was_closed_opens_again(fresh, site):
    first = fresh()
    second = first.context.new_page()
    for tab, seed in ((first, 1), (second, 2)):
        tab.goto(f"{site.address}#prompt=a+cat&steps=3&seed={seed}")
    for tab, seed in ((first, 1), (second, 2)):
        drawn(tab)
        is_python_s(tab, prompt="a cat", steps=3, seed=seed)
    address = second.url
    second.close()
    third = first.context.new_page()
    third.goto(address)
    drawn(third)
    is_python_s(third, prompt="a cat", steps=3, seed=2)


# ---------------------------------------------------------------- what goes wrong outside


def test_without_webassembly_a_line_says_so(fresh, site):
    page = fresh(script="delete window.WebAssembly")
    page.goto(site.address)
    assert "too old: the page needs WebAssembly" in complaint(page)


def test_a_network_that_fails_halfway_is_told_and_tried_again(fresh, site):
    page = fresh()
    site.cut = ("unet/diffusion_pytorch_model.safetensors", 5_000_000)
    page.goto(site.address + SHORT)
    said = complaint(page)
    site.cut = None
    assert re.match(r"the download stopped at \d+\.\d of 2\d\.\d MB", said)
    page.said.clear()  # the browser notes the failed request itself
    page.click("#again")
    drawn(page)
    is_python_s(page, prompt="a cat", steps=2)


def test_no_network_at_all_is_told(fresh, site):
    page = fresh()
    page.route("**/files.json", lambda route: route.abort())
    page.goto(site.address + SHORT)
    assert "the download could not start" in complaint(page)
    page.said.clear()
    page.unroute("**/files.json")
    page.click("#again")
    drawn(page)


# ---------------------------------------------------------------- models that do not fit


def damage(folder, what):
    """Something is wrong with a model; what the page must say about it."""
    unet, vae = folder / "unet" / parts.WEIGHTS["unet"], folder / "vae" / parts.WEIGHTS["vae"]
    if what == "missing":
        unet.unlink()
        return "mine has no unet/diffusion_pytorch_model.safetensors"
    if what == "cut":
        unet.write_bytes(unet.read_bytes()[:-100])
        return "unet/diffusion_pytorch_model.safetensors is damaged"
    if what == "a pointer":
        vae.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        return "vae/diffusion_pytorch_model.safetensors is damaged"
    if what == "large":
        with unet.open("r+b") as file:
            file.truncate(3_000_000_000)  # takes no room
        return "is too large (3000 MB)"
    if what == "not numbers":
        weights = load_file(unet)
        weights["conv_in.bias"][3] = float("nan")
        save_file(weights, unet)
        return "not numbers (NaN)"
    if what == "another shape":
        weights = load_file(vae)
        weights["decoder.conv_in.bias"] = torch.zeros(7)
        save_file(weights, vae)
        return "has another shape: decoder.conv_in.bias is 7; here it must be"
    if what == "another model's":
        shutil.copy(vae, unet)
        return "is another model's: it has no"
    if what == "other words":
        shutil.rmtree(folder / "tokenizer")
        tokenizer = new_tokenizer(["a fox"])
        tokenizer.save_pretrained(folder / "tokenizer")
        return "has another shape: embeddings.token_embedding.weight is"
    name, key, value, said = what
    settings = json.loads((folder / name).read_text()) | {key: value}
    (folder / name).write_text(json.dumps(settings))
    return said


WRONG = ["missing", "cut", "a pointer", "large", "not numbers", "another shape", "another model's", "other words"]
SETTINGS = [
    ("unet/config.json", "attention_head_dim", 8, "in unet, attention_head_dim is 8; here it must be 4"),
    ("vae/config.json", "scaling_factor", 0, "vae/config.json is damaged (scaling_factor is 0)"),
    ("tokenizer/tokenizer.json", "model", {"vocab": {}}, "tokenizer/tokenizer.json is damaged"),
    ("unet/config.json", "sample_size", 16, "in unet, sample_size is 16; here it must be 8"),
    ("scheduler/scheduler_config.json", "prediction_type", "v_prediction", 'this model predicts "v_prediction"'),
]


@pytest.mark.parametrize("what", [*WRONG, *SETTINGS], ids=lambda what: what if isinstance(what, str) else what[1])
def test_a_model_that_does_not_fit_is_told_in_one_line_and_the_courses_draws_on(page, tmp_path, what):
    mine = shutil.copytree(parts.MINI, tmp_path / "mine")
    said = damage(mine, what)
    page.set_input_files("#folder", mine)
    assert said in complaint(page)
    draw(page, prompt="a cat", negative="", seed=0, guidance=4, steps=2, scheduler="ddim")
    drawn(page)
    is_python_s(page, prompt="a cat", steps=2)


# ---------------------------------------------------------------- keys, ears, small screens


def test_all_can_be_done_from_the_keyboard(fresh, site):
    page = fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    page.focus("#prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("a knight")
    page.evaluate("document.querySelectorAll('figure').forEach(one => one.remove())")
    page.keyboard.press("Enter")
    drawn(page)
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    controls = ["draw", "keep", "copy", "negative", "seed", "dice", "guidance", "steps", "scheduler", "folder"]
    assert [name for name in [*controls, "astronaut", "start", "knight"] if name not in reached] == []
    film = page.get_by_role("slider", name="Step of the film")
    film.focus()
    page.keyboard.press("ArrowLeft")
    assert "step 1 of 2" in film.get_attribute("aria-valuetext")
    page.keyboard.press("Escape")


def test_every_control_has_a_name_that_can_be_read_aloud(page):
    for role in ("button", "textbox", "slider", "combobox", "progressbar", "img"):
        for line in page.locator("body").aria_snapshot().splitlines():
            words = line.strip().removeprefix("- ")
            assert not words.startswith(role) or f'{role} "' in words, line
    assert "The picture drawn for: " in page.locator("body").aria_snapshot()


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_nothing_is_cut_off_at_any_width(fresh, site, width):
    page = fresh(width=width)
    page.goto(site.address + "#prompt=a+photograph+of+an+astronaut&steps=1&beside.seed=1")
    drawn(page, figures=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = """all => all.filter(one => { const box = one.getBoundingClientRect()
        return box.width && (box.left < 0 || box.right > innerWidth) }).map(one => one.outerHTML.slice(0, 80))"""
    assert page.locator("main *:not(#folder)").evaluate_all(over) == []
    lines = "all => all.map(one => one.getBoundingClientRect().height / parseFloat(getComputedStyle(one).lineHeight))"
    broken = max(page.locator(".words span").evaluate_all(lines)) > 1.5
    assert not broken or width < 400


def test_what_is_fetched_is_listed_and_small(fresh, site):
    page, sizes = fresh(), []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto(site.address + SHORT)
    drawn(page)
    assert 20e6 < sum(sizes) <= 26e6


# ---------------------------------------------------------------- as one types


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """The page with a U-Net of one step, badly trained: the noise predictor's weights, a little shaken."""
    folder = tmp_path_factory.mktemp("hasty")
    model = other_model(folder / "model", 5)
    save_fast(parts.load(model, device="cpu").unet, model / "fast")
    build(folder / "site", model)
    with served(folder / "site") as server:
        server.model = model
        yield server


def in_one_step(model, prompt, seed):
    found = parts.load(model, device="cpu")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    words = encode_prompts(found.tokenizer, found.text_encoder, [prompt])
    with torch.no_grad():
        latents = euler(velocity(parts.load_fast(model), words), noise, 1)[-1]
    return torch.from_numpy(scenes.to_pictures(decode_latents(found.vae, latents))[0]).int()


def sketched(page, seed):
    playwright.expect(page.locator("#sketch p")).to_contain_text(f"seed {seed}:", timeout=1000 * SECONDS)
    read = "c => [...c.getContext('2d').getImageData(0, 0, 64, 64).data]"
    return torch.tensor(page.locator("#sketch canvas").evaluate(read)).view(64, 64, 4)[..., :3]


def test_each_key_draws_pythons_picture_of_one_step(fresh, hasty):
    page = fresh()
    page.goto(hasty.address + SHORT)
    drawn(page)
    assert page.locator("#sketch").is_hidden()
    page.get_by_label("Draw as I type").check()
    first = sketched(page, 0)
    assert (first - in_one_step(hasty.model, "a cat", 0)).abs().max() <= 1
    page.fill("#seed", "7")
    page.locator("#prompt").press_sequentially(" riding a red horse")
    page.fill("#seed", "8")
    last = sketched(page, 8)
    prompt = page.input_value("#prompt")
    assert (last - in_one_step(hasty.model, prompt, 8)).abs().max() <= 1
    page.fill("#seed", "eight")
    assert "seed must be a whole number" in complaint(page)
    page.get_by_label("Draw as I type").uncheck()
    assert page.locator("#sketch").is_hidden()


def test_a_fast_unet_that_does_not_come_is_told_and_the_page_draws_on(fresh, hasty):
    page = fresh()
    page.goto(hasty.address + SHORT)
    drawn(page)
    hasty.cut = ("fast/model.safetensors", 1_000_000)
    page.get_by_label("Draw as I type").click()
    assert complaint(page).startswith("the download stopped at ")
    hasty.cut = None
    page.said.clear()
    page.click("#draw")
    drawn(page)


def test_a_fast_unet_that_does_not_come_leaves_a_picture_that_is_being_drawn_alone(fresh, hasty):
    page = fresh()
    page.goto(hasty.address + SHORT)
    drawn(page)
    hasty.cut = ("fast/model.safetensors", 1_000_000)
    draw(page, steps=100)
    page.wait_for_selector("figure")
    page.get_by_label("Draw as I type").click()
    assert complaint(page).startswith("the download stopped at ")
    hasty.cut = None
    page.said.clear()
    playwright.expect(page.locator("#stop")).to_be_enabled()
    page.wait_for_selector("figure.whole")
    playwright.expect(page.locator("#status")).to_contain_text("Drawn in ")


def test_the_picture_of_one_step_follows_every_change_of_the_seed(fresh, hasty):
    page = fresh()
    page.goto(hasty.address + SHORT + "&seed=3")
    drawn(page)
    page.get_by_label("Draw as I type").check()
    sketched(page, 3)
    page.get_by_label("Leaf through the seeds").fill("41")
    assert (sketched(page, 41) - in_one_step(hasty.model, "a cat", 41)).abs().max() <= 1
    assert page.input_value("#seed") == "41"
    page.get_by_role("button", name="Another").click()
    sketched(page, page.input_value("#seed"))
    drawn(page)
    page.go_back()
    assert (sketched(page, 3) - in_one_step(hasty.model, "a cat", 3)).abs().max() <= 1


def test_with_another_model_the_picture_of_one_step_says_whose_it_is(fresh, hasty, tmp_path):
    page, caption = fresh(), "one step of the course's model"
    page.goto(hasty.address + SHORT)
    drawn(page)
    page.get_by_label("Draw as I type").check()
    sketched(page, 0)
    assert caption not in page.text_content("#sketch p")
    page.set_input_files("#folder", other_model(tmp_path / "mine", seed=2))
    playwright.expect(page.locator("#sketch p")).to_contain_text(caption, timeout=1000 * SECONDS)
    drawn(page)
    page.select_option("#model", "course")
    playwright.expect(page.locator("#sketch p")).not_to_contain_text(caption)


def test_without_such_a_unet_nothing_is_offered(fresh, site):
    def without(route):
        route.fulfill(json={name: size for name, size in route.fetch().json().items() if "fast" not in name})

    page = fresh()
    page.goto(site.address + SHORT)
    drawn(page)
    assert page.locator("#typing-knob").is_visible()
    page.route("**/files.json", without)
    page.reload()
    drawn(page)
    assert page.locator("#typing-knob").is_hidden()


# ---------------------------------------------------------------- the lessons' controls, in the book


@pytest.fixture
def lesson(fresh, site):
    """Opens a page of the book that has one control."""

    def open_lesson(name, script=""):
        book = site.folder / "notebooks"
        book.mkdir(exist_ok=True)
        module = '<script type="module" src="../live/lesson.js"></script>'
        (book / "lesson.html").write_text(
            f'<!doctype html><link rel="icon" href="data:,"><div data-live="{name}"></div>{module}'
        )
        (site.folder / "live").exists() or (site.folder / "live").symlink_to(site.folder)  # where the book has it
        page = fresh(script=script)
        page.goto(f"{site.address}notebooks/lesson.html")
        page.get_by_role("button", name="24 MB, once").click()
        return page

    return open_lesson


def until(page, said):
    playwright.expect(page.get_by_role("status")).to_contain_text(said, timeout=1000 * SECONDS)


def canvas(page, which=0):
    read = "(all, i) => [...all[i].getContext('2d').getImageData(0, 0, 64, 64).data]"
    return torch.tensor(page.locator("canvas").evaluate_all(read, which)).view(64, 64, 4)[..., :3]


def drawn_latents(model, prompt):
    states = []
    text_to_image(model, prompt, watch=lambda t, x: states.append(x))
    return states[-1]


def assert_shows(page, which, model, latents):
    wanted = torch.from_numpy(scenes.to_pictures(decode_latents(model.vae, latents))[0]).int()
    assert (canvas(page, which) - wanted).abs().max() <= 1


def test_the_guidance_slider_of_lesson_5_draws_pythons_picture_and_its_film(lesson):
    page = lesson("guidance")
    until(page, "guidance 4")
    assert (canvas(page) - python_s(prompt=ASTRONAUT)).abs().max() <= 1
    page.get_by_label("Guidance").fill("7.5")
    until(page, "guidance 7.5")
    last = canvas(page)
    assert (last - python_s(prompt=ASTRONAUT, guidance=7.5)).abs().max() <= 1
    page.get_by_label("Film").fill("3")
    assert (canvas(page) - last).abs().float().mean() > 5


def test_the_noise_slider_of_lesson_3_shows_pythons_latents(lesson):
    page, model, t = lesson("noise"), parts.load("mini", "cpu"), torch.tensor([640])
    until(page, "t = 300")
    page.get_by_label("t", exact=True).fill("640")
    until(page, "t = 640")
    eps = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_shows(page, 0, model, q_sample(drawn_latents(model, ASTRONAUT), t, eps))


def test_the_walk_of_lesson_2_shows_pythons_latents(lesson):
    page, model = lesson("walk"), parts.load("mini", "cpu")
    page.get_by_label("To").fill("a postcard of a cat")
    page.get_by_label("To").press("Tab")
    until(page, "w = 0.5")
    page.get_by_label("w", exact=True).fill("0.24")
    until(page, "w = 0.24")
    ends = [drawn_latents(model, prompt) for prompt in (ASTRONAUT, "a postcard of a cat")]
    for which, w in enumerate((0, 0.24, 1)):
        assert_shows(page, which, model, torch.lerp(*ends, w))


def test_a_control_whose_network_fails_says_so_and_can_be_tried_again(lesson, site):
    site.cut = ("unet/diffusion_pytorch_model.safetensors", 5_000_000)
    page = lesson("guidance")
    playwright.expect(page.get_by_role("alert")).to_contain_text("the download stopped at ", timeout=1000 * SECONDS)
    site.cut = None
    page.said.clear()
    page.get_by_role("button", name="Move the guidance here").click()
    until(page, "guidance 4")
    assert len(page.workers) == 1


def test_a_slider_that_moves_faster_than_pictures_come_shows_the_last_and_not_all(lesson):
    page = lesson(
        "noise",
        script="""window.asked = 0
        const post = Worker.prototype.postMessage
        Worker.prototype.postMessage = function (message) {
            asked += message.do === "decode"
            return post.call(this, message)
        }""",
    )
    until(page, "t = 300")
    before = page.evaluate("asked")
    page.get_by_label("t", exact=True).evaluate("""slider => {
        for (let t = 500; t < 600; t++) {
            slider.value = t
            slider.dispatchEvent(new Event("input"))
        }
    }""")
    until(page, "t = 599")
    assert page.evaluate("asked") - before == 2  # the first and the last


def test_the_noise_slider_follows_the_models_own_schedule(lesson, site):
    file = site.folder / "model" / "scheduler" / "scheduler_config.json"
    before = file.read_text()
    assert json.loads(before)["beta_end"] == 0.012
    file.write_text(before.replace("0.012", "0.024"))
    try:
        page = lesson("noise")
        until(page, "t = 300")
    finally:
        file.write_text(before)
    alpha_bar = parts.load_scheduler().config | {"beta_end": 0.024}
    signal = parts.make_scheduler("ddim", alpha_bar).alphas_cumprod[300].sqrt()
    assert f"t = 300: {signal:.2f} x0" in page.get_by_role("status").text_content()
