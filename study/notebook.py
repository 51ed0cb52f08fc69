"""A notebook's side of the study: checked parameters, recorded numbers and words, tables, figures and a stamp.

Straight after the cell tagged ``parameters``:

    from study import notebook
    study = notebook.open("07_zero_shot_inversion")    # fails in one sentence on a parameter that it does not know

    study.record("seconds", 18.2, unit="s", tolerance=None)    # {glue:text}`seconds` reads "18.2 s" in the prose
    study.record_interval("psnr", "depth 8", interval)         # the same for a measure of study/scores.py: psnr_depth_8
    study.record_text("verdict", "helps")                      # a word or phrase for the prose
    study.table({"depth 8": {"psnr": interval}})               # a table with the measures' titles, units and digits
    study.figure("every_depth", figure)    # {glue:figure} every_depth; and a PNG beside the executed copy
    study.grid("photos", {"photo": images, "depth 8": reconstructions})    # the same, of rows of images
    study.folder                           # for checkpoints: kept when a run is killed, fresh when its inputs change
    study.results_of("06_baselines")       # another notebook's results
    study.stamp()                          # the last cell: when, where and with which code this page was made

All that is recorded goes to ``<notebook>.results.json``; `make check` compares it with what the repository expects.
:mod:`study.book` is the other side: it runs the notebooks and compiles them.
"""

import ast
import datetime
import hashlib
import json
import os
import re
import time
from pathlib import Path

from invkit.store import code_version, machine_class, one_line, whole

RUN_VARIABLE = "INVKIT_STUDY_RUN"  # tells the kernel which run it is part of (JSON)
DEFAULT_TOLERANCE = 0.05  # of a recorded number, when CI compares it with the committed one
INJECTED = "# Parameters\n"  # the heading of the cell in which papermill hands over the parameters
SHIPPED_PROFILES = "quick", "published"  # in which the prose shows nothing that is not recorded
DIGITS = 3  # significant digits of a recorded number in the prose


class StudyError(Exception):
    """Something the user can mend; its one sentence says how, and is short where what it quotes is long."""

    def __init__(self, sentence):
        super().__init__(one_line(sentence))


def open(name):
    """Join the study from inside the chapter ``name``; call it first thing in the cell straight after the parameters.

    Works alike under ``make book``, plain papermill and JupyterLab; the latter two write to ``build/by-hand``. It may
    be called again in the same kernel: variables that the notebook has made since do not matter. A copy of a chapter
    under another file name keeps results of its own, by its file's name, and may have other parameters.

    Raises ValueError for a parameter given to papermill that the notebook does not have and TypeError for one of
    another type than the notebook's own default; papermill itself would only warn.
    """
    build = Path(__file__).parents[1] / "build" / "by-hand"
    run = _run_of_this_kernel()
    source = Path(run["source"] if run else _file_by_hand() or name)
    own = source.stem
    cells = _cells_executed()
    defaults, given = preceding_parameters(cells), injected_parameters(cells)
    check_parameters(own, defaults, given)
    digest = hashlib.sha256(repr(sorted((defaults | given).items())).encode()).hexdigest()[:12]
    run = run or {"profile": "by hand", "results": str(build), "folder": str(build / own / digest)}
    return Study(own, run["profile"], Path(run["results"]), Path(run["folder"]), name, source)


def _run_of_this_kernel():
    """What `study.book` says of the run that this kernel is part of; None for a run by hand."""
    try:
        run = json.loads(os.environ.get(RUN_VARIABLE) or "null")
        if run is None or all(isinstance(run[key], str) for key in ("profile", "source", "results", "folder")):
            return run
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise StudyError(f"The environment's {RUN_VARIABLE} describes no run, which only `make` sets: unset it.")


class Study:
    """One notebook's link to the study: its results, figures, tables, scratch folder and stamp.

    ``name``: that of the notebook's file, and of its results; ``chapter``: of which chapter it is a copy, if it is one;
    ``source``: the notebook's file.
    """

    def __init__(self, name, profile, results_folder, folder, chapter=None, source=None):
        self.name, self.profile, self.folder = name, profile, folder
        self.chapter = chapter or name
        self._source = source
        self._results_folder = results_folder
        self._results, self._figures = {}, set()
        self._started = time.time()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def device(self):
        """Where a chapter computes: "cuda" where there is a GPU, else "cpu"."""
        import torch  # here, because study.book has no need of it

        return "cuda" if torch.cuda.is_available() else "cpu"

    def record(self, id, value, ci95=None, unit="", n=None, digits=DIGITS, tolerance="default", **more):
        """Record the number ``id`` and glue it for the prose.

        ``value``: a number, a `statistics.Interval`, which brings the next and ``n``, or None for what was not
        measured; ``ci95``: its interval (low, high); ``n``: of how many; ``digits``: significant digits shown;
        ``tolerance``: how far another machine's value may lie before CI objects (absolute; 5 % when not given; None for
        what no two machines share, such as seconds). ``more`` goes to results.json as it is. In the prose
        ``{glue:text}`` of ``id`` reads "18.2 dB", of ``id_ci`` "17.5 to 18.9 dB", of ``id_n`` "20".
        """
        if hasattr(value, "low"):
            value, ci95, n = value.value, (value.low, value.high), value.n
        value, ci95 = value if value is None else float(value), None if ci95 is None else [float(end) for end in ci95]
        if tolerance == "default":
            tolerance = None if value is None else DEFAULT_TOLERANCE * abs(value)
        self._keep(id, {"value": value, "ci95": ci95, "unit": unit, "n": n, "tolerance": tolerance, **more})
        _glue(id, "not measured" if value is None else _quantity(unit, digits, value))
        if ci95:
            _glue(f"{id}_ci", _quantity(unit, digits, *ci95))
        if n is not None:
            _glue(f"{id}_n", str(n))

    def record_interval(self, measure, name, interval, digits=None, **more):
        """Record a measure of one row, with its 95 % interval, under the id ``<measure>_<name>``.

        ``measure``: a key of `study.scores.MEASURES`, which holds its unit, factor and tolerance; ``name``: of what,
        such as "depth 8", of which `slug` makes "depth_8"; ``interval``: a `statistics.Interval` in the measure's own
        scale, a share in [0, 1] where the page shows per cent; ``digits``: significant digits in the prose, 3 when not
        given. ``more`` goes to `record` (for instance another tolerance) and to results.json.
        """
        known = _measures()[measure]
        tolerance = _tolerances().get(self.chapter, {}).get(measure, known.tolerance)
        facts = {"unit": known.unit, "tolerance": tolerance, "digits": digits or DIGITS} | more
        self.record(f"{measure}_{slug(name)}", interval.times(known.factor), **facts)

    def record_rows(self, rows, columns=None, prefix="", **more):
        """Record the cells of a table, each by `record_interval` under the id ``<measure>_<row's name>``.

        ``rows``: {row's name: {measure: interval}}; ``columns``: the measures to record, all when not given, of which
        a row may lack some; ``prefix``: comes before each row's name; ``more`` goes to `record_interval`.
        """
        for name, row in rows.items():
            for measure in columns or row:
                if measure in row:
                    self.record_interval(measure, f"{prefix}{name}", row[measure], **more)

    def record_text(self, id, text, compared=True):
        """Record a word or phrase for the prose, where ``{glue:text}`` of ``id`` shows it.

        ``compared``: False for a verdict that may turn out otherwise on another machine, such as on networks trained
        on the spot.
        """
        self._keep(id, {"text": str(text)} | ({} if compared else {"compared": False}))
        _glue(id, str(text))

    def record_texts(self, compared=True, **texts):
        """`record_text` of several, by their ids; whole numbers, such as parameters, as "6,000"."""
        for id, text in texts.items():
            self.record_text(id, f"{text:,}" if isinstance(text, int) else text, compared)

    def _keep(self, id, result):
        if id in self._results or id in self._figures:
            raise ValueError(f"{self.name} records {id!r} twice; give each result its own id.")
        self._results[id] = result
        write_text(self._results_folder / f"{self.name}.results.json", json.dumps(self._results, indent=1) + "\n")

    def table(self, rows, columns=None, title="", signed=False):
        """A table of results, to be a cell's last expression: a pandas DataFrame of strings.

        ``rows``: {row's name (a tuple for names in several columns): {column: Interval, number, string or None}};
        ``columns``: which, in order (all, in the order in which they occur, when not given); a column that is a key of
        `study.scores.MEASURES` gets its title, unit, factor and digits; ``title``: the heading of the rows' names (a
        list where these are tuples); ``signed``: write the sign of positive numbers too, for differences. Without rows,
        for what a profile does not measure, it is None, of which the page shows nothing.
        """
        import pandas

        pandas.set_option("display.max_rows", None)  # a page shows every row, of which pandas leaves out some beyond 60
        if not rows:
            return None
        columns = list(columns or dict.fromkeys(column for row in rows.values() for column in row))
        cells = [[cell_text(column, row.get(column, ""), signed) for column in columns] for row in rows.values()]
        names = list(rows)
        index = pandas.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else pandas.Index(names)
        frame = pandas.DataFrame(cells, index=index, columns=[heading(column) for column in columns])
        if title:
            frame.index.names = [title] if isinstance(title, str) else list(title)
        return frame

    def grid(self, id, rows, captions=None, columns=None, **more):
        """Draw rows of images, {row's name: images (N, 3, H, W) in [0, 1]}, as the figure ``id``.

        ``captions``: {row's name: N short texts}; ``columns``: N titles above; ``more``: see
        `study.plots.image_grid`.
        """
        from study import plots

        self.figure(id, plots.image_grid(rows, columns=columns, captions=captions, **more))

    def figure(self, id, figure):
        """Glue a matplotlib figure as ``id``, unshown here; write ``<notebook>.<id>.png`` beside the results."""
        from matplotlib import pyplot
        from myst_nb import glue

        if id in self._results or id in self._figures:
            raise ValueError(f"{self.name} records {id!r} twice; give each result its own id.")
        self._figures.add(id)
        self._results_folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self._results_folder / f"{self.name}.{id}.png", dpi=150, bbox_inches="tight")
        glue(id, figure, display=False)
        pyplot.close(figure)

    def results_of(self, name):
        """The headline numbers ``{id: {value, ci95, unit, n, ...}}`` of an earlier notebook, which this one follows."""
        path = self._results_folder / f"{name}.results.json"
        if not path.exists():
            raise FileNotFoundError(f"{name} has no results yet; run it first with `make notebook NAME={name}`.")
        from study.copies import read_object  # here, because it takes its errors from this module

        return read_object(path, f"delete it, and run {name} again")

    def stamp(self):
        """One line for the page: profile, date, machine, minutes, code version."""
        from IPython.display import Markdown

        if self.profile not in SHIPPED_PROFILES:
            self._glue_what_is_missing()
        minutes = (time.time() - self._started) / 60
        facts = [f"profile *{self.profile}*", f"{datetime.date.today():%-d %B %Y}", machine_class()]
        return Markdown(f"Made with {', '.join(facts)}, in {minutes:.1f} minutes, by invkit {code_version()}.")

    def _glue_what_is_missing(self):
        """Where other networks are compared than the text was written for, it says so instead of showing nothing."""
        if self._source is None or not self._source.is_file():
            return
        glued = set(self._results)
        glued |= {f"{id}_ci" for id, result in self._results.items() if result.get("ci95")}
        glued |= {f"{id}_n" for id, result in self._results.items() if result.get("n") is not None}
        for id in ids_in_prose(self._source):
            if id not in glued:
                _glue(id, "(not measured here)")


def ids_in_prose(notebook):
    """The ids whose numbers and words the text of a notebook shows, those of other notebooks left out."""
    cells = [source_of(cell) for cell in read_json(notebook)["cells"] if cell["cell_type"] == "markdown"]
    return list(dict.fromkeys(re.findall(r"{glue:text}`(\w+)`", "\n".join(cells))))


def cell_text(column, value, signed=False):
    """The text of one cell of a table: "18.21 [17.50, 18.93]" for an Interval, "–" for None, a string as it is.

    ``column``: a key of `study.scores.MEASURES`, whose factor and digits are taken, or any other heading: then a number
    has three significant digits. ``signed``: with a plus sign where it is positive.
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    sign, known = "+" if signed else "", _measures().get(column)
    if isinstance(value, int) and not known:
        return f"{value:{sign},}"
    values = [value.value, value.low, value.high] if hasattr(value, "low") else [float(value)]
    if known:
        texts = [f"{known.factor * one:{sign}.{known.digits}f}" for one in values]
    else:
        texts = [("+" if signed and one > 0 else "") + _significant(one, DIGITS) for one in values]
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def heading(column):
    """The heading of a table's column: a measure's title and unit, or the column's own name."""
    known = _measures().get(column)
    return column if known is None else f"{known.title}, {known.unit}" if known.unit else known.title


def slug(name):
    """``"Depth 8, over mean-image"`` -> ``"depth_8_over_mean_image"``: lower case, spaces and signs as one "_"."""
    return re.sub(r"\W+", "_", str(name).lower()).strip("_")


def _measures():
    from study.scores import MEASURES  # here, because it imports PyTorch, which study.book has no need of

    return MEASURES


def _tolerances():
    from study.scores import TOLERANCES

    return TOLERANCES


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


def default_parameters(notebook):
    """``{name: value}`` of the one cell tagged ``parameters``, which holds nothing but assignments of literals."""
    try:
        whole = read_json(notebook)
        made = whole.get("nbformat", 4)
        cells = [cell for cell in whole.get("cells", []) if "parameters" in cell["metadata"].get("tags", [])]
        for cell in whole.get("cells", []):
            source_of(cell)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise StudyError(f"{notebook} is no notebook: `git checkout {notebook}` brings back one of ours.") from None
    if made != 4:
        raise StudyError(f"{notebook} has the format {made}, not 4: `jupyter nbconvert --to notebook` makes it that.")
    if len(cells) != 1:
        raise StudyError(f"{notebook} has {len(cells)} cells tagged 'parameters'; it needs exactly one.")
    try:
        return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source_of(cells[0])).body}
    except (AttributeError, ValueError):
        raise StudyError(
            f"The parameters cell of {notebook} may hold only assignments such as `steps = 100`."
        ) from None


def injected_parameters(cells):
    """``{name: value}`` of the cell that papermill put in, the last of ``cells`` (sources) with its heading.

    A value that is no literal, as papermill writes infinity, is left out.
    """
    injected = next((cell for cell in reversed(cells) if cell.startswith(INJECTED)), "")
    found = {}
    for line in ast.parse(injected).body:
        try:
            found[line.targets[0].id] = ast.literal_eval(line.value)
        except ValueError:
            continue
    return found


def preceding_parameters(cells):
    """``{name: default}`` of the parameters cell: the one before that which papermill put in, the first of its heading.

    A default that is no literal is None, in whose place any value may be given. {} where papermill put in no cell.
    """
    first = next((place for place, cell in enumerate(cells) if cell.startswith(INJECTED)), 0)
    found = {}
    for line in ast.parse(cells[first - 1]).body if first else []:
        for target in line.targets if isinstance(line, ast.Assign) else []:
            if isinstance(target, ast.Name):
                found[target.id] = _literal(line.value)
    return found


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _file_by_hand():
    """The notebook's file where papermill or nbconvert was called for it in a shell, or in JupyterLab; else None."""
    import psutil

    try:
        command = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        command = []
    if any(Path(part).stem in ("papermill", "nbconvert", "jupyter-nbconvert") for part in command):
        words = command
    else:
        words = [os.environ.get("JPY_SESSION_NAME", "")]  # of Jupyter's own server
    return next((word for word in words if word.endswith(".ipynb")), None)


def _cells_executed():
    """The sources of all cells that this kernel has executed; none outside IPython."""
    from IPython import get_ipython

    shell = get_ipython()
    return list(shell.user_ns.get("In", ())) if shell else []


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


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def source_of(cell):
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def write_text(path, text):
    """Write whole or not at all."""
    with whole(path) as file:
        file.write_text(text, encoding="utf-8")


def listed(names):
    """["a", "b", "c"] -> "a, b and c", for a sentence about some names, at least one."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
