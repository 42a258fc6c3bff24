"""What a visitor of the repository finds beside the course: one address, forms, how to contribute, the model's card."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard

ROOT = Path(__file__).parent.parent
MINI = ROOT / "sdlearn" / "mini"
REFERENCE = ("docs/reference/lessons.md", "docs/reference/tools.md")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*-*.yml"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text("pyproject.toml"))["project"]

# ---------------------------------------------------------------- one address, one version


def test_no_file_has_another_address_than_pyproject():
    address = PROJECT["urls"]["Repository"]
    owner = re.fullmatch(r"https://github\.com/([\w-]+)/sdlearn", address)[1]
    pattern = r"github(\.com)?/[a-z0-9_-]+/sdlearn\b|[a-z0-9_-]+\.github\.io/sdlearn"
    command = ["git", "grep", "--untracked", "-hoiE", pattern, "--", ".", ":!tests/test_*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    allowed = {f"github.com/{owner}/sdlearn", f"github/{owner}/sdlearn", f"{owner}.github.io/sdlearn"}
    assert listed and {*listed} <= allowed


def test_citation_and_changelog_have_the_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # what the format demands
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", text("CHANGELOG.md"), re.M)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_and_commands_exist(name):
    prose = re.sub(r"^```.*?^```", "", text(name), flags=re.S | re.M)
    links = re.findall(r"\]\(([^):#]+)\)", prose)
    assert [link for link in links if not (ROOT / link).exists()] == []
    known = {*re.findall(r"^(\w+)(?=:(?!=))", text("Makefile"), re.M)}
    assert {*re.findall(r"`make (\w+)", prose)} <= known
    assert {*re.findall(r" ([A-Z]+)=", prose)} <= {*re.findall(r"^(\w+) \?=", text("Makefile"), re.M)}


def test_every_lesson_in_the_readme_has_its_badge_for_colab():
    address = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        [row] = re.findall(rf"^\| \[.+?\]\(notebooks/{path.name}\).*", text("README.md"), re.M)
        assert f"](https://colab.research.google.com/github/{address}/blob/main/notebooks/{path.name}) |" in row


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys() <= {"name", "description", "body", "title"}
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len({*ids}) == len(ids) and all(re.fullmatch(r"[\w-]+", name) for name in ids)
    for field in form["body"]:
        needs = {
            "markdown": "value",
            "dropdown": "options",
            "checkboxes": "options",
            "textarea": "label",
            "input": "label",
        }
        assert needs[field["type"]] in field["attributes"]
        options = field["attributes"].get("options", [])
        assert len({str(option) for option in options}) == len(options) and all(type(x) in (str, dict) for x in options)


def test_every_form_asks_for_the_lesson_by_the_readmes_names():
    lessons = re.findall(r"^\| \[(.+?)\]\(notebooks/\w+\.ipynb\)", text("README.md"), re.M)
    for path in FORMS:
        [field] = [field for field in yaml.safe_load(path.read_text())["body"] if field.get("id") == "lesson"]
        assert field["attributes"]["options"] == [*lessons, "none of them"]
    assert len(FORMS) == 3 and len(lessons) >= 6


# ---------------------------------------------------------------- the model on the hub


def test_the_card_tells_the_hub_what_the_model_is():
    about = ModelCard.load(MINI / "README.md").data
    assert (about.library_name, about.pipeline_tag, about.license) == ("diffusers", "text-to-image", "apache-2.0")
    assert "stable-diffusion" in about.tags


@pytest.fixture
def hub(tmp_path):
    """The folder that `make hub` makes, in a clone that has an address."""
    runpy.run_path(str(ROOT / "docs" / "hub.py"))["fill"](tmp_path / "hub", "https://example.org/me/sdlearn")
    return tmp_path / "hub"


@pytest.mark.slow
def test_the_folder_for_the_hub_is_a_pipeline_and_its_card_and_nothing_else(hub):
    parts = {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert {path.name for path in hub.iterdir()} == parts | {"model_index.json", "README.md"}
    files = [path for path in hub.rglob("*") if path.is_file() and path.name != "README.md"]
    assert [path for path in files if path.read_bytes() != (MINI / path.relative_to(hub)).read_bytes()] == []
    pipe = StableDiffusionPipeline.from_pretrained(hub, local_files_only=True, use_safetensors=True)
    assert pipe.components.keys() >= parts


def test_on_the_hub_the_cards_links_lead_back_to_the_repository(hub):
    card, at_home = (folder / "README.md" for folder in (hub, MINI))
    links = re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", card.read_text(encoding="utf-8"))
    assert len(links) == at_home.read_text(encoding="utf-8").count("](") > 5
    for picture, link in links:
        kind, branch, *path = link.removeprefix("https://example.org/me/sdlearn/").partition("#")[0].split("/")
        assert (kind, branch) == ("raw" if picture else "blob", "main")
        assert ".." not in path and ROOT.joinpath(*path).exists()
    assert ModelCard.load(card).data.library_name == "diffusers"


# ---------------------------------------------------------------- the book


def test_the_reference_has_every_module_that_a_lesson_or_a_command_is_made_of():
    listed = re.findall(r"^\.\. automodule:: (\S+)", "".join(map(text, REFERENCE)), re.M)
    files = [path for folder in ("", "parts", "tools") for path in (ROOT / "sdlearn" / folder).glob("[!_]*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert modules | {"sdlearn", "sdlearn.scenes", "sdlearn.parts"} <= {*listed} and len(listed) == len({*listed})
