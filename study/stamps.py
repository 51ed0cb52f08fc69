"""Which executed notebooks are of the study as it is now, said to Snakemake by the times of files.

Snakemake remembers with which parameters it ran a notebook itself. It knows nothing of a copy that
`python -m study.book run` made, or that was deleted. So every notebook has a stamp, a file with its fingerprint: older
than the executed copy where that is of this fingerprint, else newer than everything. It is an input of the notebook's
rule and of the book's.
"""

import os
from pathlib import Path

from study.copies import read_results
from study.fingerprint import fingerprint
from study.notebook import StudyError
from study.pages import facts_of
from study.profiles import notebooks


def stamp(name, profile):
    """The path of a notebook's stamp."""
    return f"build/{profile}/fingerprints/{name}"


def write_stamps(profile):
    """Write the stamps of all notebooks, with the times that say which have to run."""
    for name in notebooks():
        digest, copy = fingerprint(name, profile), Path("build", profile, "executed", f"{name}.ipynb")
        path = Path(stamp(name, profile))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest, encoding="utf-8")
        results = copy.with_name(f"{name}.results.json")  # written while the notebook ran
        times = [file.stat().st_mtime for file in (copy, results) if file.exists()]
        if is_of(copy, digest):
            os.utime(path, (min(times) - 1,) * 2)
        elif times:  # they may lie in the future, where the copy was made by a machine whose clock is ahead
            os.utime(path, (max(path.stat().st_mtime, max(times) + 1),) * 2)


def is_of(copy, digest):
    """Whether an executed copy is whole, with its results, and was made from inputs of this fingerprint."""
    try:
        read_results(copy.with_name(f"{copy.stem}.results.json"))
        return facts_of(copy).get("fingerprint") == digest
    except StudyError:
        return False
