"""The workflows: steps that are sound shell, call what the Makefile has, use pinned actions, and may do little."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def steps(path):
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


def test_every_step_is_sound_shell(path):
    assert yaml.safe_load(path.read_text())["defaults"]["run"]["shell"] == "bash"  # which minds a failure before a pipe
    for step in steps(path):
        if "run" in step:
            text = re.sub(r"\$\{\{.*?\}\}", "value", step["run"])
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
            assert done.returncode == 0 and not done.stderr, f"{step['run']}: {done.stderr}"


def test_what_a_step_calls_exists(path):
    for step in steps(path):
        for words in re.findall(r"(?m)^\s*make ([^|><\n]+)", step.get("run", "")):
            called = [word for word in words.split() if "=" not in word and not word.startswith("-")]
            assert called and set(called) <= TARGETS, f"make {words}"
        for script in re.findall(r"[\w./]+\.py\b", step.get("run", "")):
            assert list(ROOT.glob(script)), script
        for name in re.findall(r"hashFiles\((.*?)\)", str(step.get("with", {}).get("key", ""))):
            for file in re.findall(r"'(.*?)'", name):
                assert (ROOT / file).is_file(), file


def test_actions_are_pinned_by_commit_with_their_version(path):
    used = re.findall(r"(?m)^\s*(?:- )?uses: (.*)$", path.read_text())
    assert len(used) == sum("uses" in step for step in steps(path)) and used
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_the_same_action_is_the_same_everywhere(path):
    everywhere = "\n".join(other.read_text() for other in PATHS)
    for name in re.findall(r"uses: ([\w-]+/[\w-]+)@", path.read_text()):
        assert len(set(re.findall(rf"uses: {name}@(.*)", everywhere))) == 1, name


def test_permissions_are_the_least(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        allowed = {"deploy": {"pages": "write", "id-token": "write"}, "publish": {"id-token": "write"}}.get(name)
        assert job.get("permissions") == allowed and job["timeout-minutes"] <= 60
    for step in steps(path):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    assert "pull_request_target" not in path.read_text() and "secrets." not in path.read_text()
    # What others may choose (a branch's name, say) must not become part of a command.
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


def test_the_workflows_do_what_they_are_for(path):
    text, on = path.read_text(), yaml.safe_load(path.read_text())[True]  # YAML 1.1 reads the key `on` as true
    wanted = {
        "book": (["push"], ["make PYTHON=python book", "actions/deploy-pages"]),
        "ci": (["push", "pull_request"], ["make PYTHON=python book", "make PYTHON=python test", "lowest-direct"]),
        "colab": (["schedule"], ["make PYTHON=python colab"]),
        "sphinx": (["schedule"], ["make PYTHON=python sphinx"]),
        "release": (["push"], ["python -m build", "twine check", "tests/sigreg", "pypa/gh-action-pypi-publish"]),
        "links": (["schedule"], ["make PYTHON=python links", "continue-on-error: true"]),
    }
    events, parts = wanted[path.stem]
    assert set(events) <= set(on) and all(part in text for part in parts)
    versions = {
        "ci": {"3.10", "3.11", "3.12", "3.13", "3.14"}, "colab": {"3.13"}, "release": {"3.10", "3.12", "3.14"}
    }.get(path.stem, {"3.12"})  # fmt: skip
    assert set(re.findall(r'"(3\.\d+)"', text)) == versions


def test_only_a_tag_publishes_and_only_after_the_tests(path):
    workflow = yaml.safe_load(path.read_text())
    if path.stem != "release":
        assert "pypi-publish" not in path.read_text()
        return
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    assert workflow["jobs"]["publish"]["needs"] == "test" and workflow["jobs"]["test"]["needs"] == "build"
    assert not any("run" in step for step in workflow["jobs"]["publish"]["steps"])  # nothing else with that right
