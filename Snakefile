# The study as a graph: notebook + parameters -> executed notebook + results -> book.
#
# Content decides, not time stamps: a notebook runs again when its fingerprint (invkit/book.py) changes or a notebook it
# reads ran again. To run on a cluster, add an executor, for instance `--executor slurm --jobs 10` (README).

import sys
from pathlib import Path

from invkit import book

PROFILE = config.get("profile", "quick")
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
        "{sys.executable} -m invkit.book compile --profile {PROFILE}"


rule notebook:
    input:
        lambda wildcards: expand(BUILD + "/executed/{name}.ipynb", name=book.needs(wildcards.name, PROFILE)),
    output:
        BUILD + "/executed/{name}.ipynb",
        BUILD + "/executed/{name}.results.json",
    params:
        fingerprint=lambda wildcards: FINGERPRINTS[wildcards.name],
    threads: workflow.cores  # one notebook at a time on one machine: each uses all cores
    shell:
        "{sys.executable} -m invkit.book run {wildcards.name} --profile {PROFILE}"
