# The study as a graph: notebook + parameters -> executed notebook + results -> book; and the weights that it reads, each
# trained from nothing once those that its recipe loads are there.
#
# Content decides, not time stamps: a notebook runs again when its fingerprint (study/book.py) changes or a notebook it
# reads ran again. To run on a cluster, add an executor, for instance `--executor slurm --jobs 10` (README).

import sys
from pathlib import Path

from study import book

PROFILE = config.get("profile", "quick")
AT_ONCE = int(config.get("at_once", 1))  # notebooks at the same time on one machine, which share its cores
BUILD = f"build/{PROFILE}"
NOTEBOOKS = book.notebooks()
try:
    FINGERPRINTS = {name: book.fingerprint(name, PROFILE) for name in NOTEBOOKS}
except book.StudyError as error:
    sys.exit(f"\n{error}")


wildcard_constraints:
    name="|".join(NOTEBOOKS) or "none",


rule book:
    input:
        expand(BUILD + "/executed/{name}.ipynb", name=NOTEBOOKS),
        [f"notebooks/{name}.ipynb" for name in NOTEBOOKS],  # their prose
        [str(path) for path in Path("book").rglob("*") if path.is_file()],
        "_config.yml",
    output:
        BUILD + "/html/index.html",
    shell:
        "{sys.executable} -m study.book compile --profile {PROFILE}"


rule notebook:
    input:
        lambda wildcards: expand(BUILD + "/executed/{name}.ipynb", name=book.needs(wildcards.name, PROFILE)),
    output:
        BUILD + "/executed/{name}.ipynb",
        BUILD + "/executed/{name}.results.json",
    params:
        fingerprint=lambda wildcards: FINGERPRINTS[wildcards.name],
    threads: -(-workflow.cores // AT_ONCE)  # of PyTorch too: Snakemake hands them down
    shell:
        "{sys.executable} -m study.book run {wildcards.name} --profile {PROFILE}"


# `make weights`. A rehearsal (SCALE below 1) has a folder of its own, so that it is never taken for the real weights.
SCALE = config.get("scale", 1)
WEIGHTS = config.get("weights", "build/weights")


RECORDED = sorted(card.parent.name for card in Path("weights").glob("*/card.json"))


def cards_needed(wildcards):
    from recipes import table  # here, because it takes many seconds and the book does not need it

    return [f"{WEIGHTS}/{name}/card.json" for name in table.needs(wildcards.weights)]


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
    threads: workflow.cores
    shell:  # with no other weights to load than these; the checkpoints, gigabytes, go when all is done
        "INVKIT_WEIGHTS={WEIGHTS} {sys.executable} -m recipes train {wildcards.weights} --folder {params.folder}"
        " --scale {SCALE} && rm -r {params.folder}/training"
