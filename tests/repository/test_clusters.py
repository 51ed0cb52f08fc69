"""The profiles for clusters: every rule says what it takes, Snakemake reads them, and kubectl is asked for that."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import small_study, write_notebook

ROOT = Path(__file__).parents[2]
CLUSTERS = sorted(path.parent.name for path in ROOT.glob("profiles/*/config.yaml"))
PLUGINS = {"slurm": "snakemake_executor_plugin_slurm", "kubernetes": "snakemake_executor_plugin_cluster_generic"}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of one notebook, and the profiles."""
    write_notebook(tmp_path / "notebooks/01_one.ipynb", [("markdown", "# One"), ("code", "n = 1", "parameters")])
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/quick.yaml").write_text("")
    for name in CLUSTERS:
        (tmp_path / "profiles" / name).symlink_to(ROOT / "profiles" / name)
    (tmp_path / "_config.yml").write_text("")
    (tmp_path / "weights/net").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def planned(profile, *options):
    """What Snakemake says it would run."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--nolock"]
    ran = subprocess.run([*command, "--workflow-profile", profile, *options], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_rule_that_computes_says_what_it_takes(cluster):
    profile = yaml.safe_load((ROOT / "profiles" / cluster / "config.yaml").read_text())
    rules = re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.MULTILINE)
    assert set(rules) - {"weights"} == set(profile["set-threads"])
    takes = {
        rule: profile["default-resources"] | profile["set-resources"].get(rule, {}) for rule in profile["set-threads"]
    }
    assert all(one.keys() >= {"mem_mb", "runtime"} for one in takes.values())
    assert all("gpu" in takes[rule] for rule in ("notebook", "train"))


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_snakemake_plans_the_book_with_it(cluster, small):
    profile = yaml.safe_load(Path(f"profiles/{cluster}/config.yaml").read_text())
    local = {key: profile[key] for key in profile if not key.startswith(("executor", "cluster-generic", "slurm"))}
    Path("local").mkdir()
    Path("local/config.yaml").write_text(yaml.safe_dump(local))
    said = planned("local", "--cores", "8")
    threads, resources = re.search(r"rule notebook:(?:.*\n)+?    threads: (\d+)\n    resources: (.*)\n", said).groups()
    assert threads == "8" and {"mem_mb=24000", "runtime=720", "gpu=1"} <= set(resources.split(", "))
    if importlib.util.find_spec(PLUGINS[cluster]):  # requirements-cluster.txt
        assert "rule notebook:" in planned(f"profiles/{cluster}")


KUBECTL = """#!{python}
import json, sys, yaml
from pathlib import Path
log = Path({folder!r})
if sys.argv[1] == "create":
    log.joinpath("job.json").write_text(json.dumps(yaml.safe_load(sys.stdin)))
    print("job.batch/study-1")
elif sys.argv[1] == "get":
    print(log.joinpath("state").read_text(), end="") if log.joinpath("state").exists() else sys.exit("not found")
"""


def test_a_job_of_kubernetes_gets_what_the_rule_asks_for(tmp_path):
    (tmp_path / "kubectl").write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    (tmp_path / "kubectl").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STUDY_IMAGE": "mine:1"}

    def call(script, *arguments):
        command = [ROOT / "profiles/kubernetes" / script, *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert call("submit", "8", "24000", "1", "720", "/study/job with a space.sh") == "job.batch/study-1\n"
    spec = json.loads((tmp_path / "job.json").read_text())["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert spec["activeDeadlineSeconds"] == 720 * 60 and spec["backoffLimit"] == 0
    assert container["command"] == ["sh", "/study/job with a space.sh"] and container["workingDir"] == str(tmp_path)
    assert container["resources"] == {"requests": {"cpu": "8", "memory": "24000M"},
                                      "limits": {"memory": "24000M", "nvidia.com/gpu": "1"}}  # fmt: skip
    call("submit", "2", "4000", "0", "30", "job.sh")
    container = json.loads((tmp_path / "job.json").read_text())["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "mine:1" and container["resources"]["limits"] == {"memory": "4000M"}

    assert call("status", "job.batch/study-1") == "failed\n"  # there is none
    for state, word in (("/", "running"), ("1/", "success"), ("/1", "failed")):
        (tmp_path / "state").write_text(state)
        assert call("status", "job.batch/study-1") == f"{word}\n"


WORKERS = """#!{python}
# A cluster of this machine: each job is a process of its own, with a home and a temporary folder of its own.
import os, re, subprocess, sys, yaml
from pathlib import Path
log = Path({folder!r})
if sys.argv[1] == "create":
    container = yaml.safe_load(sys.stdin)["spec"]["template"]["spec"]["containers"][0]
    (worker := log / str(len(list(log.glob("*/"))))).mkdir()
    words = {{"HOME": worker, "TMPDIR": worker}} | {{key: os.environ[key] for key in ("PATH", "PYTHONPATH")}}
    script = '"$@" > {{0}}/said 2>&1; echo $? > {{0}}/partial; mv {{0}}/partial {{0}}/code'.format(worker)
    subprocess.Popen(["sh", "-c", script, "sh", *container["command"]], cwd=container["workingDir"], env=words,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"job.batch/{{worker.name}}")
else:
    code = log / Path(sys.argv[2]).name / "code"
    print("/" if not code.exists() else "1/" if int(code.read_text()) == 0 else "/1", end="")
"""


def made(place, cluster, monkeypatch, *options, **notebooks):
    """The results of notebooks after `make book CLUSTER=…` in a new folder, and what each worker said."""
    small_study(place, **notebooks)
    (place / "profiles" / cluster).symlink_to(ROOT / "profiles" / cluster)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    command += ["book", f"CLUSTER={cluster}", f"SNAKEMAKE_OPTIONS={' '.join(options)}"]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True)
    said = {path.parent.name: path.read_text() for path in place.parent.glob("workers/*/said")}
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}{said}"
    assert all((place / f"build/quick/html/{name}.html").is_file() for name in notebooks)
    read = lambda name: json.loads((place / f"build/quick/executed/{name}.results.json").read_text())  # noqa: E731
    return {name: read(name) for name in notebooks}, said


DOUBLE = "study.record('double', 2 * number)"
FOLLOWS = "study.record('sum', number + study.results_of('one')['double']['value'])"


def test_workers_that_share_a_folder_make_the_book(tmp_path, monkeypatch):
    """`make book CLUSTER=kubernetes`, for real but for the machines."""
    pytest.importorskip(PLUGINS["kubernetes"])  # in the workflow
    (workers := tmp_path / "workers").mkdir()
    (tmp_path / "kubectl").write_text(WORKERS.format(python=sys.executable, folder=str(workers)))
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    often = "--seconds-between-status-checks 1"
    results, said = made(tmp_path / "study", "kubernetes", monkeypatch, often, one=(DOUBLE,), two=(FOLLOWS,))
    assert len(said) == 3 and results["two"]["sum"]["value"] == 6  # two notebooks, and the pages


def test_nodes_of_slurm_make_the_book(tmp_path, monkeypatch):
    """`make book CLUSTER=slurm`, with the profile as it is; tests/slurm_of_two_nodes.sh makes such a cluster."""
    pytest.importorskip(PLUGINS["slurm"])
    asked = shutil.which("sinfo") and subprocess.run(["sinfo", "-hN", "-o%N"], capture_output=True, text=True)
    if not asked or asked.returncode:
        pytest.skip("There is no SLURM here.")
    node = "import os; study.record_text('node', os.environ['SLURMD_NODENAME'])"
    often = "--slurm-init-seconds-before-status-checks 5"
    notebooks = {"one": (DOUBLE, node), "two": (FOLLOWS, node), "other": (node,)}
    results, _ = made(tmp_path / "study", "slurm", monkeypatch, often, **notebooks)
    assert results["two"]["sum"]["value"] == 6
    at_once = {results[name]["node"]["text"] for name in ("one", "other")}
    assert at_once == set(asked.stdout.split())
