"""The workflow asks for no more than it needs, and runs nothing that can change under its name."""

import re
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


def test_what_is_called_is_there_and_runs_also_by_the_calendar():
    text = (ROOT / ".github/workflows/study.yml").read_text()
    assert yaml.safe_load(text)[True]["schedule"]  # YAML reads the key `on` as true
    targets = set(re.findall(r"run: make (\w+)", text))
    makefile = (ROOT / "Makefile").read_text()
    assert {"lint", "test", "book", "check"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert all((ROOT / script).is_file() for script in re.findall(r"python (benchmarks/\S+)", text))
