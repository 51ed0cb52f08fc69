"""The workflow asks for no more than it needs, and runs nothing that can change under its name."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAY_WRITE = {"pages": {"pages", "id-token"}}  # by job


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_and_permissions_are_the_least(path):
    text = path.read_text()
    workflow = yaml.safe_load(text)
    uses = re.findall(r"uses: *(.*)", text)
    assert uses and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action) for action in uses)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        writes = {key for key, value in job["permissions"].items() if value == "write"}
        assert writes == MAY_WRITE.get(name, set())
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_is_called_is_there_and_runs_also_by_the_calendar(path):
    text = path.read_text()
    assert yaml.safe_load(text)[True]["schedule"]  # YAML reads the key `on` as true
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"run: make ([a-z]+)", text))
    assert all((ROOT / script).is_file() for script in re.findall(r"python (benchmarks/\S+)", text))
    assert all((ROOT / file).is_file() for file in re.findall(r"-r (\S+)", text))
    assert "make published" not in text  # hours: a stale published copy is told of by `make book PROFILE=published`


def commands(workflow):
    jobs = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())["jobs"]
    return {name: " ; ".join(step["run"] for step in job["steps"] if "run" in step) for name, job in jobs.items()}


def test_what_has_to_run_is_called():
    study, newest = commands("study.yml"), commands("newest.yml")
    called = ("make lint", "make test", "make book", "make check", "make book PROFILE=published")
    assert all(one in study["study"].split(" ; ") for one in called)
    assert study["browser"].endswith(" ; make test-book")
    assert re.search(r"make weights SCALE=0\.0\d+ NETWORKS=", study["rehearsal"])
    assert all(f"benchmarks/{script}.py" in study["faults"] for script in ("faults", "kills"))
    assert "--kinds" not in study["faults"] and study["faults"].count("--strict") == 2  # all of them, and red for one
    assert "VERSIONS=newest" in newest["newest"] and "make check" in newest["newest"]
    assert all(file in newest["audit"] for file in ("constraints.txt", *sorted(path.name for path in pinned())))


def pinned():
    """What is installed besides requirements.txt, which constraints.txt repeats."""
    return set(ROOT.glob("requirements-*.txt"))


def test_every_version_and_system_that_is_promised_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = {one.rpartition(" ")[2] for one in project["classifiers"] if "Python" in one}
    jobs = yaml.safe_load((ROOT / ".github/workflows/study.yml").read_text())["jobs"]
    tried = jobs["machines"]["strategy"]["matrix"]["include"]
    assert {one["python"] for one in tried} == promised
    assert {one["os"].partition("-")[0] for one in tried} == {"ubuntu", "macos"}
    assert any(one["os"].endswith("-arm") for one in tried) and project["requires-python"] == f">={min(promised)}"
    assert ", ".join(sorted(promised)[:-1]) + f" or {max(promised)} will do" in (ROOT / "README.md").read_text()


def test_new_versions_of_packages_and_actions_are_proposed():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}
