"""The study from outside: run its notebooks, compile its book, store and check what came out.

    python -m study.book run NAME --profile quick    # one notebook -> build/quick/executed/
    python -m study.book compile --profile quick     # executed notebooks and prose -> build/quick/html/index.html
    python -m study.book publish                     # build/published/executed/ -> book/published/
    python -m study.book check                       # the quick profile's results against profiles/quick.expected.json
    python -m study.book expect                      # write that file
    python -m study.book vouch "why"                 # the code, not yet committed, changes nothing in book/published/

The Makefile and the Snakefile call these from the repository's root, to which all paths are relative. What each rests
on: `study.profiles` (parameters), `study.fingerprint` (what must run again), `study.pages` (compiling) and
`study.published` (copies that are kept in the repository).
"""

import datetime
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout
from traitlets.config import Config

from invkit.cli import Parser
from invkit.store import code_version, machine_class, one_line
from study.copies import read_object, read_results, sealed
from study.fingerprint import fingerprint, notebooks_needed
from study.notebook import RUN_VARIABLE, StudyError, read_json, write_text
from study.outputs import without_progress
from study.pages import NO_GRAMMAR, compile
from study.profiles import notebooks, parameters
from study.published import publish, take, vouch
from study.stamps import is_of

BUSY = 600  # seconds in which a kernel on a busy machine may be late with a cell's output; nbclient's own 4 are few
LONGEST_WAIT = 12 * 3600  # seconds for another process that runs the same notebook: longer than any of them takes
SOCKET_FOLDER = 60  # characters; a socket's path may have 107, and these names go below the folder
EXPECTED = Path("profiles/quick.expected.json")
AGAIN = f"`git checkout {EXPECTED}`, or another copy of the repository, brings it back"


def run_notebook(name, profile):
    """Execute one notebook into ``build/<profile>/executed/``, or take the published copy of the same fingerprint.

    Where another process runs the same notebook, its copy is waited for and taken. Raises StudyError when a cell fails
    (the copy executed so far is then ``build/<profile>/failed/<name>.ipynb``), when results that the notebook loads are
    damaged, and when the other process does not end.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # as `NO_GRAMMAR` has it in other processes
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    if name not in notebooks():
        names = ", ".join(notebooks()) or "none here: go to the repository's folder"
        raise StudyError(f"There is no notebook {name!r}; there are {names}.")
    given, digest = parameters(name, profile), fingerprint(name, profile)
    build = Path("build") / profile
    executed, attempt = build / "executed", build / "failed" / f"{name}.ipynb"
    for folder in (executed, attempt.parent):
        folder.mkdir(parents=True, exist_ok=True)
    place = f"[{notebooks().index(name) + 1}/{len(notebooks())}] {name}"

    if profile == "published" and take(name, digest, executed):
        print(f"{place}: unchanged since it was published", flush=True)
        return

    for other in notebooks_needed(name, profile):
        if _results(profile, other).exists():  # where there are none, the cell that loads them says what to do
            read_results(_results(profile, other))
    long = ": no published copy of it as it is now, so it runs, perhaps for hours" if profile == "published" else ""
    print(f"{place} (profile {profile}){long}", flush=True)
    lock = FileLock(attempt.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:  # a run whose Snakemake was killed may still be at it; its lock ends with it
        print(f"{place}: another process runs it, and holds {lock.lock_file}; waiting for that to end", flush=True)
        before = _written(executed / f"{name}.ipynb")
        _wait(lock, name)
        if _written(executed / f"{name}.ipynb") != before and is_of(executed / f"{name}.ipynb", digest):
            print(f"{place}: the other process has run it", flush=True)
            lock.release()
            return
    os.environ[RUN_VARIABLE] = json.dumps(
        {
            "profile": profile,
            "source": str(Path(f"notebooks/{name}.ipynb").resolve()),
            "results": str(executed.resolve()),
            "folder": str((build / "work" / name / digest[:12]).resolve()),
        }
    )
    results = executed / f"{name}.results.json"
    results.unlink(missing_ok=True)
    started = time.time()
    try:
        with tempfile.TemporaryDirectory(prefix="invkit-", dir=_short_folder()) as sockets:
            # The kernel talks through files of its own, not through TCP ports that others on the machine could reach.
            config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            # What goes wrong in a cell is in the notebook; of its own end the kernel would print forty lines.
            config.NotebookClient.extra_arguments = ["--log-level=CRITICAL", f"--IPKernelApp.exec_lines={NO_GRAMMAR}"]
            settings = {"config": config, "iopub_timeout": BUSY, "progress_bar": {"desc": name}}
            # JupyterLab writes the name of its own environment's kernel into a notebook; the study has this one.
            settings |= {"kernel_name": "python3", "language": "python"}
            papermill.execute_notebook(f"notebooks/{name}.ipynb", attempt, given, **settings)
    except papermill.PapermillExecutionError as error:
        first_line = (str(error.evalue).splitlines() or [""])[0]
        raise StudyError(
            f"{name} failed in its cell {error.cell_index}: {error.ename}: {first_line} "
            f"Its executed copy, up to there, is {attempt}."
        ) from None
    except CellTimeoutError:
        raise StudyError(f"{name}: its kernel was silent for {BUSY} s; run it again on a less busy machine.") from None
    except DeadKernelError:
        raise StudyError(f"{name} lost its kernel (out of memory?); see {attempt}.") from None
    seconds = time.time() - started
    facts = {"fingerprint": digest, "profile": profile, "seconds": round(seconds), "minutes": round(seconds / 60, 1)}
    facts |= {"date": f"{datetime.date.today()}", "machine": machine_class(), "version": code_version()}
    if not results.exists():  # it has no headline numbers
        write_text(results, "{}\n")
    copy = sealed(_clean(read_json(attempt), facts), results.read_text(encoding="utf-8"))
    write_text(executed / f"{name}.ipynb", json.dumps(copy, indent=1) + "\n")
    attempt.unlink()
    lock.release()


def _wait(lock, name):
    """Take a lock as soon as the process that holds it ends; StudyError where that takes too long."""
    try:
        lock.acquire(timeout=LONGEST_WAIT, poll_interval=0.5)
    except Timeout:
        raise StudyError(
            f"Another process has held {lock.lock_file} for {LONGEST_WAIT / 3600:g} hours: end the one that runs "
            f"{name}, then run it again."
        ) from None


def _written(path):
    """When a file was written; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _short_folder():
    """Where the kernel's sockets go: the temporary folder (None), or /tmp where the path of that is too long."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= SOCKET_FOLDER else "/tmp"


def _clean(notebook, facts):
    """Drop what must not reach the page: this machine's paths, progress bars, the injected cell's rendering."""
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"]["invkit"] = facts
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            tags = [*tags, "remove-cell"]
        kept = {"tags": tags, "mystnb": cell["metadata"].get("mystnb")}  # the caption and words of a shown figure
        cell["metadata"] = {key: value for key, value in kept.items() if value}
        if cell["cell_type"] == "code":
            cell["outputs"] = without_progress(cell["outputs"])
    return notebook


def check():
    """Compare the quick profile's results with the expected ones; print those that lie outside their tolerance.

    A number must lie within the tolerance of the expected one, a text must be equal to it; texts that are not expected
    are not compared. Raises StudyError, with the number of differences, where there is one and where nothing is built.
    """
    found = {name: path for name in notebooks() if (path := _results("quick", name)).exists()}
    if not found:
        raise StudyError("There is nothing to check: `make book` first, which makes the profile quick.")
    expected = read_object(EXPECTED, AGAIN) if EXPECTED.exists() else {}
    differences = compared = 0
    for name in notebooks():
        known = expected.get(name, {})
        compared += len(known)
        if name not in found:
            print(f"{name} was not run: `make notebook NAME={name}` runs it.")
            differences += len(known) or 1
            continue
        results = read_results(found[name])[1]
        lost = known.keys() - results.keys()
        new = {id for id, result in results.items() if result.get("tolerance") is not None} - known.keys()
        wrong = [f"{id} {words}" for id in known if id in results and (words := _difference(results[id], known[id]))]
        for words in wrong:
            print(f"{name}: {words}.")
        if lost:
            print(f"{name}: expected, but not recorded: {', '.join(sorted(lost))}.")
        if new:
            ids = ", ".join(sorted(new))
            print(f"{name}: recorded, but not expected: {ids}; `python -m study.book expect` adds them.")
        differences += len(wrong) + len(lost) + len(new)
    if differences:
        raise StudyError(f"{differences:,} differences, listed above, from {compared:,} expected results.")
    print(f"All {compared:,} results of the profile quick are as expected.")


def _difference(result, expected):
    """What differs, in words; None where nothing does."""
    if "text" in expected:
        text = result.get("text")
        return None if text == expected["text"] else f"is {text!r}, not {expected['text']!r}"
    value, tolerance = result.get("value"), expected["tolerance"]
    if value is not None and abs(value - expected["value"]) <= tolerance:
        return None
    shown = "not measured" if value is None else f"{value:.5g}"
    return f"is {shown}, not {expected['value']:.5g} within {tolerance:.3g}"


def expect():
    """Write what `check` expects from the quick profile's results: numbers with a tolerance, and texts without digits.

    A number within a text may be rounded to another one on another machine, where the number itself is tolerated.
    """
    expected = {}
    for name in notebooks():
        results = read_results(_results("quick", name))[1]
        expected[name] = {id: kept for id, result in results.items() if (kept := _expected(result))}
    write_text(EXPECTED, json.dumps(expected, indent=1) + "\n")


def _expected(result):
    if "value" not in result:  # a text; what is recorded of a claim has both
        compared = result.get("compared", True) and not re.search(r"\d", result["text"])
        return {"text": result["text"]} if compared else None
    return {key: result[key] for key in ("value", "tolerance")} if result["tolerance"] is not None else None


def _results(profile, name):
    return Path("build", profile, "executed", f"{name}.results.json")


COMMANDS = {"run": run_notebook, "compile": compile, "publish": publish, "check": check, "expect": expect}
COMMANDS |= {"vouch": vouch}


def main():
    parser = Parser(prog="python -m study.book", description="Run the study's notebooks and compile its book.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command)
        if command == "run":
            sub.add_argument("name")
        if command == "vouch":
            sub.add_argument("why")
        if command in ("run", "compile"):
            sub.add_argument("--profile", default="quick")
    arguments = vars(parser.parse_args())
    sys.stdout.reconfigure(errors="backslashreplace")  # what a locale cannot show is no reason to end, as on stderr
    try:
        COMMANDS[arguments.pop("command")](**arguments)
    except StudyError as error:
        sys.exit(str(error))
    except OSError as error:  # a full disk, or a folder that cannot be written to
        sys.exit(one_line(f"{error.filename}: {error.strerror}." if error.filename else str(error)))
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; what had been finished stays.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
