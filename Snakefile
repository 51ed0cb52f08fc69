# The study as a graph: notebook + parameters -> executed notebook + results -> book; and the weights that it loads, each
# trained from nothing once those that its recipe loads are there.
#
# Content decides: a notebook runs again when its executed copy is not of its fingerprint (study/fingerprint.py), which
# the times of stamps say (study/stamps.py), or when a notebook whose results it loads ran again. On a cluster,
# `make CLUSTER=slurm` takes the threads, memory, GPUs and minutes of each rule from profiles/slurm/config.yaml.

import sys
from pathlib import Path

from study.fingerprint import fingerprint, notebooks_needed
from study.notebook import StudyError
from study.profiles import notebooks, parameters, setting
from study.stamps import stamp, write_stamps

PROFILE = config.get("profile", "quick")
CORES = workflow.resource_settings.cores or 1  # on a cluster none is given here: its profile sets the threads
BUILD = f"build/{PROFILE}"
# The profile "published" takes hours. Its book is compiled from the published copies, as they are, and only
# `make published` (run_stale=1) runs what has changed since these were made.
RUNS = PROFILE != "published" or bool(int(config.get("run_stale", 0)))
try:
    AT_ONCE = setting("AT_ONCE", config.get("at_once", 1), int)  # notebooks that share the cores of one machine
    SCALE = setting("SCALE", config.get("scale", 1), float)
    NOTEBOOKS = notebooks()
    for name in NOTEBOOKS:
        parameters(name, PROFILE)  # a slip in the profile is told before anything runs
    if RUNS and workflow.is_main_process:
        write_stamps(PROFILE)
except StudyError as error:
    print(error, file=sys.stderr)  # Snakemake, told to be quiet, would not
    sys.exit(1)


wildcard_constraints:
    name="|".join(NOTEBOOKS) or "none",


rule book:
    input:
        expand(BUILD + "/executed/{name}.ipynb", name=NOTEBOOKS) if RUNS else [],
        [stamp(name, PROFILE) for name in NOTEBOOKS] if RUNS else [],
        [f"notebooks/{name}.ipynb" for name in NOTEBOOKS],  # their prose
        [str(path) for path in Path("book").rglob("*") if path.is_file()],
        [str(path) for path in Path("study").glob("*.*") if path.is_file()],  # what makes pages of them
        f"profiles/{PROFILE}.yaml",
        "_config.yml",
    output:
        BUILD + "/html/index.html",
    params:
        fingerprints=lambda wildcards: [fingerprint(name, PROFILE) for name in NOTEBOOKS],  # which decide what notes the pages of old copies have
    shell:
        "{sys.executable:q} -m study.book compile --profile {PROFILE:q}"


rule notebook:
    input:
        lambda wildcards: expand(BUILD + "/executed/{name}.ipynb", name=notebooks_needed(wildcards.name, PROFILE)),
        lambda wildcards: stamp(wildcards.name, PROFILE),
    output:
        BUILD + "/executed/{name}.ipynb",
        BUILD + "/executed/{name}.results.json",
    threads: -(-CORES // AT_ONCE)  # of PyTorch too: Snakemake hands them down
    shell:
        "{sys.executable:q} -m study.book run {wildcards.name} --profile {PROFILE:q}"


# `make weights`. A rehearsal (SCALE below 1) has a folder of its own, so that it is never taken for the real weights.
WEIGHTS = config.get("weights", "build/weights")


RECORDED = sorted(card.parent.name for card in Path("weights").glob("*/card.json"))


def cards_needed(wildcards):
    from recipes import table  # here, because it takes many seconds and the book does not need it

    try:
        return [f"{WEIGHTS}/{name}/card.json" for name in table.needs(wildcards.weights)]
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


rule weights:
    input:
        expand(WEIGHTS + "/{weights}/card.json", weights=RECORDED),


rule train:
    input:
        cards_needed,
    output:
        WEIGHTS + "/{weights,[^/]+}/card.json",
    params:
        folder=lambda wildcards: f"{WEIGHTS}/{wildcards.weights}",
    threads: CORES
    shell:  # with no other weights to load than these; the checkpoints, gigabytes, go when all is done, or when `make` ends
        "INVKIT_WEIGHTS={WEIGHTS:q} {sys.executable:q} -m recipes train {wildcards.weights} --folder {params.folder:q}"
        " --scale {SCALE} && rm -rf {params.folder:q}/training"
