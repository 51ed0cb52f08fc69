"""Executed copies of notebooks and their results, checked whenever they are read: a damaged one is one sentence.

A copy holds two hashes in its metadata, of its cells and of the results file beside it (`sealed`). So a changed bit is
noticed in either of them, and so are results of another run than the copy's, such as one that was killed. Copies of
before there were hashes are checked for their form alone.
"""

import hashlib
import json
from pathlib import Path

from study.notebook import StudyError, source_of

PUBLISHED = Path("book/published")


def sealed(notebook, results):
    """The notebook, with hashes of its cells and of the text of its results in its metadata."""
    notebook["metadata"]["invkit"] |= {"sha256": _hash_of_cells(notebook), "results_sha256": _hash(results)}
    return notebook


def read_copy(path):
    """An executed copy. Raises StudyError, with what to do, where it is missing or damaged."""
    notebook = _read(path)
    cells, metadata = notebook.get("cells"), notebook.get("metadata")
    whole = isinstance(cells, list) and isinstance(metadata, dict) and all(map(_is_cell, cells))
    if not whole or facts_in(notebook).get("sha256") not in (None, _hash_of_cells(notebook)):
        raise StudyError(f"{path} is damaged, or was changed since it ran: {_mend(path)}.")
    return notebook


def read_results(path):
    """The results of a notebook, ``{id: {value, ...}}``, as a text and read.

    Raises StudyError, with what to do, where they are missing or damaged, or are not those of the copy beside them.
    """
    results, copy = _read(path), path.with_name(f"{_name(path)}.ipynb")
    text = path.read_text(encoding="utf-8")
    known = facts_in(read_copy(copy)).get("results_sha256") if copy.exists() else None
    if not all(isinstance(result, dict) for result in results.values()) or known not in (None, _hash(text)):
        raise StudyError(f"{path} is damaged, or is not of the run of {copy.name}: {_mend(path)}.")
    return text, results


def facts_in(notebook):
    """What `study.book.run_notebook` wrote into an executed copy: fingerprint, profile, date, version and so on."""
    metadata = notebook.get("metadata")
    facts = metadata.get("invkit") if isinstance(metadata, dict) else None
    return facts if isinstance(facts, dict) else {}


def read_object(path, mend):
    """The JSON object in a file. mend: what to do where it is missing or damaged, for the sentence of a StudyError."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path} is missing: {mend}.") from None
    except (ValueError, RecursionError):  # no UTF-8, or no JSON
        found = None
    if not isinstance(found, dict):
        raise StudyError(f"{path} is damaged: {mend}.")
    return found


def _read(path):
    return read_object(path, _mend(path))


def _mend(path):
    """What to do about a damaged file: published ones are in the repository, all others are made again."""
    if path.parent == PUBLISHED:
        return f"`git checkout {path}`, or another copy of the repository, brings it back"
    profile = path.parts[1] if path.parts[0] == "build" else "quick"
    again = "make published" if profile == "published" else f"make notebook NAME={_name(path)} PROFILE={profile}"
    return f"delete it, and `{again}` makes it again"


def _name(path):
    """Of the notebook that a copy, results or a figure belongs to."""
    return path.name.partition(".")[0]


def _is_cell(cell):
    return (
        isinstance(cell, dict)
        and isinstance(cell.get("cell_type"), str)
        and isinstance(cell.get("metadata"), dict)
        and isinstance(cell.get("source"), str | list)
    )


def _hash_of_cells(notebook):
    """Of what the cells say and show, however the file is laid out."""
    cells = [cell | {"source": source_of(cell)} for cell in notebook["cells"]]
    return _hash(json.dumps(cells, sort_keys=True))


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()
