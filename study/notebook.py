"""A notebook's side of the study: checked parameters, headline numbers for results.json and the prose, a stamp.

Straight after the cell tagged ``parameters``:

    import invkit
    study = invkit.study.open("07_zero_shot_inversion")    # fails in one sentence on a parameter it does not know

    study.record("psnr_33", 18.2, ci95=(17.5, 18.9), unit="dB", n=20)    # prose: {glue:text}`psnr_33` reads "18.2 dB"
    study.figure("every_depth", figure)    # prose: {glue:figure} every_depth; and a PNG beside the executed copy
    study.folder                           # for checkpoints: kept when a run is killed, fresh when its inputs change
    study.results_of("06_baselines")       # another notebook's headline numbers
    study.stamp()                          # the last cell: when, where and with which code this page was made

:mod:`invkit.book` is the other side: it runs the notebooks and compiles them.
"""

import ast
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

RUN_VARIABLE = "INVKIT_STUDY_RUN"  # tells the kernel which run it is part of (JSON)
DEFAULT_TOLERANCE = 0.05  # of a headline number, when CI compares it with the committed one


class StudyError(Exception):
    """Something the reader can mend; its one sentence says how."""


def open(name):
    """Join the study from inside notebook ``name``; call it in the cell straight after the parameters.

    Returns a :class:`Study`. Raises ValueError for a parameter the notebook does not have and TypeError for one of
    another type than the notebook's own default; papermill itself would only warn. Works alike under ``make book``,
    plain papermill and JupyterLab; the latter two write to ``build/by-hand``.
    """
    root = Path(__file__).parents[1]
    by_hand = {
        "profile": "by hand",
        "source": str(root / "notebooks" / f"{name}.ipynb"),
        "results": str(root / "build" / "by-hand"),
        "folder": str(root / "build" / "by-hand" / name),
    }
    run = json.loads(os.environ.get(RUN_VARIABLE, "null")) or by_hand
    plain = (type(None), bool, int, float, str, list, tuple, dict)
    given = {
        key: value
        for key, value in sys._getframe(1).f_globals.items()
        if isinstance(value, plain) and not key.startswith(("_", "PAPERMILL_")) and key not in ("In", "Out")
    }
    check_parameters(name, default_parameters(run["source"]), given)
    return Study(name, run["profile"], Path(run["results"]), Path(run["folder"]))


class Study:
    """One notebook's link to the study: its headline numbers, figures, scratch folder and stamp."""

    def __init__(self, name, profile, results_folder, folder):
        self.name, self.profile, self.folder = name, profile, folder
        self._results_folder = results_folder
        self._results = {}
        self._started = time.time()
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, id, value, ci95=None, unit="", n=None, digits=3, tolerance="default", **more):
        """Record the headline number ``id`` and glue it for the prose.

        ``value``: a number, a `metrics.Interval`, which brings the next and ``n``, or None for what was not measured;
        ``ci95``: its interval (low, high); ``n``: of how many; ``digits``: significant digits shown; ``tolerance``: how
        far another machine's value may lie before CI objects (absolute; 5 % when not given; None for what no two
        machines share, such as seconds). ``more`` goes to results.json as it is. In the prose ``{glue:text}`` of ``id``
        reads "18.2 dB", of ``id_ci`` "17.5 to 18.9 dB", of ``id_n`` "20".
        """
        if hasattr(value, "low"):
            value, ci95, n = value.value, (value.low, value.high), value.n
        if id in self._results:
            raise ValueError(f"{self.name} records {id!r} twice; give each headline number its own id.")
        value, ci95 = value if value is None else float(value), None if ci95 is None else [float(end) for end in ci95]
        if tolerance == "default":
            tolerance = None if value is None else DEFAULT_TOLERANCE * abs(value)
        self._results[id] = {"value": value, "ci95": ci95, "unit": unit, "n": n, "tolerance": tolerance, **more}
        write(self._results_folder / f"{self.name}.results.json", json.dumps(self._results, indent=1) + "\n")
        _glue(id, "not measured" if value is None else _quantity(unit, digits, value))
        if ci95:
            _glue(f"{id}_ci", _quantity(unit, digits, *ci95))
        if n is not None:
            _glue(f"{id}_n", str(n))

    def figure(self, id, figure):
        """Glue a matplotlib figure as ``id``, unshown here; write ``<notebook>.<id>.png`` beside the results."""
        from matplotlib import pyplot
        from myst_nb import glue

        self._results_folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self._results_folder / f"{self.name}.{id}.png", dpi=150, bbox_inches="tight")
        glue(id, figure, display=False)
        pyplot.close(figure)

    def results_of(self, name):
        """The headline numbers ``{id: {value, ci95, unit, n, ...}}`` of an earlier notebook, which this one follows."""
        path = self._results_folder / f"{name}.results.json"
        if not path.exists():
            raise FileNotFoundError(f"{name} has no results yet; run it first with `make notebook NAME={name}`.")
        return json.loads(path.read_text())

    def stamp(self):
        """One line for the page: profile, date, machine, minutes, code version."""
        from IPython.display import Markdown

        minutes = (time.time() - self._started) / 60
        facts = [f"profile *{self.profile}*", f"{datetime.date.today():%-d %B %Y}", machine()]
        return Markdown(f"Made with {', '.join(facts)}, in {minutes:.1f} minutes, by invkit {version()}.")


def _glue(id, text):
    from myst_nb import glue

    glue(id, text, display=False)


def _quantity(unit, digits, *values):
    """``("dB", 3, 17.5, 18.9)`` -> "17.5 to 18.9 dB"; a per cent sign stands close, as in "97 %"."""
    return " to ".join(_significant(value, digits) for value in values) + (f" {unit}" if unit else "")


def _significant(value, digits):
    """``(0.98765, 3)`` -> "0.988", ``(1234.5, 3)`` -> "1234": all integer digits, never an exponent."""
    if value == 0 or value != value or abs(value) == float("inf"):
        return f"{value:g}"
    exponent = int(f"{value:e}".split("e")[1])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def machine():
    """The class of machine this is, without naming it: "2 CPU cores" or "NVIDIA H100"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def version():
    """The package's version and, in a git checkout, the commit."""
    import invkit

    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed copy
        return invkit.__version__
    return f"{invkit.__version__} ({commit})"


def default_parameters(notebook):
    """``{name: value}`` of the one cell tagged ``parameters``, which holds nothing but assignments of literals."""
    cells = [cell for cell in read(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise StudyError(f"{notebook} has {len(cells)} cells tagged 'parameters'; it needs exactly one.")
    try:
        return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source_of(cells[0])).body}
    except (AttributeError, ValueError):
        raise StudyError(
            f"The parameters cell of {notebook} may hold only assignments such as `steps = 100`."
        ) from None


def check_parameters(name, defaults, given):
    """Raise ValueError (unknown) or TypeError (not of the default's type); a default of None takes anything."""
    for key, value in given.items():
        if key not in defaults:
            raise ValueError(f"{name} has no parameter {key!r}; it has {', '.join(defaults) or 'none'}.")
        if not _same_type(defaults[key], value):
            default = defaults[key]
            raise TypeError(f"{name} takes {key} as {type(default).__name__}, such as {default!r}, not {value!r}.")


def _same_type(default, value):
    if default is None:
        return True
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_same_type(default[0] if default else None, v) for v in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def read(path):
    return json.loads(Path(path).read_text())


def source_of(cell):
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def write(path, text):
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def listed(names):
    """["a", "b", "c"] -> "a, b and c", for a sentence about some names, at least one."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
