"""The compiled book: its pages from the executed notebooks and the prose of book/.

The code and outputs of a page are those of an executed copy, and the parameters that it shows are those with which the
copy was run. A copy that was made with the code and weights of today takes the prose of notebooks/, so that an edited
sentence needs no new run. A copy whose code or weights have changed since is shown whole, with a note that says so.
"""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tokenize
from functools import cache
from html import escape
from pathlib import Path

import yaml

from study.copies import facts_in, read_copy
from study.fingerprint import fingerprint
from study.live import put_beside
from study.notebook import StudyError, injected_parameters, read_json, source_of, write_text
from study.profiles import notebooks
from study.web_pages import finish

BEFORE = Path("book/before.yaml")
FIGURES = Path("book/figures.yaml")
POINTS = Path("book/points.yaml")
CHANGES = Path("CHANGELOG.md")  # stands in the page book/changelog.md, at this mark:
CHANGES_HERE = f"<!-- {CHANGES} -->\n"
CLAIMS = Path(__file__).with_name("claims.yaml")
FIGURE = re.compile(r"^(?P<block>```\{glue:figure\} (?P<figure>\w+)\n.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^(```|:::)", re.MULTILINE)  # that a figure, a note or a warning begins with
# The checker of notebooks would compile a grammar of web addresses, for seconds, which no notebook needs.
NO_GRAMMAR = "__import__('sys').modules['rfc3987_syntax'] = None"  # leaves no name behind
QUANTITY = re.compile(r"'?-?[\d.]+(?: to -?[\d.]+)?(?: \D*)?'?")  # what `study.notebook.Study.record` glues, as a whole
THOUSANDS = re.compile(r"(?<![\d.])\d{4,}(?![\d.]*\d)")
GLUED = "application/papermill.record/text/plain"  # the kind of what `study.notebook.Study.record` glues
FORMATTER = re.compile(r" *# fmt: (?:skip|on|off) *$", re.MULTILINE)  # what a comment tells the formatter of code
COLUMNS = 88  # to which the values of parameters are wrapped


def compile(profile):
    """Compile ``build/<profile>/html/index.html`` from book/ and the executed notebooks; a warning is an error.

    Prose pages find every ``study.figure`` as ``_static/<notebook>.<id>.png``. At the end, the seconds that each
    notebook took are printed, longest first.
    """
    build = Path("build") / profile
    source, made, html = build / "src", build / "made", build / "html"
    copies = {name: executed_copy(name, profile) for name in notebooks()}
    executed = {name: read_copy(path) for name, path in copies.items()}  # all of them, before anything is replaced
    print("Compiling the pages", flush=True)
    for folder in (source, made):
        shutil.rmtree(folder, ignore_errors=True)
    not_pages = "published", BEFORE.name, FIGURES.name, POINTS.name
    shutil.copytree("book", source, ignore=shutil.ignore_patterns(*not_pages))
    (source / "_static").mkdir(exist_ok=True)
    if (page := source / "changelog.md").exists():
        write_text(page, with_changes(page.read_text(encoding="utf-8"), CHANGES.read_text(encoding="utf-8")))
    for name, path in copies.items():
        write_text(source / f"{name}.ipynb", json.dumps(_page(name, executed[name], profile)))
        for beside in (*path.parent.glob(f"{name}.*.png"), *path.parent.glob(f"{name}.results.json")):
            shutil.copy(beside, source / "_static")
    # A fresh folder and --all, because glue across pages goes stale silently.
    command = [
        sys.executable,
        "-c",
        f"{NO_GRAMMAR}; from jupyter_book.cli.main import main; main()",
        "build",
        source,
        "--path-output",
        made,
    ]
    command += ["--config", _with_buttons(source.parent / "_config.yml"), "--all", "-W", "--keep-going", "--quiet"]
    if subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL).returncode:
        raise StudyError("The book has warnings or errors, listed above; no page was replaced.")
    put_beside(made / "_build" / "html")
    finish(made / "_build" / "html")
    shutil.rmtree(html, ignore_errors=True)
    shutil.move(made / "_build" / "html", html)
    shutil.rmtree(made)
    _print_seconds(copies)


def with_changes(page, changes):
    """The page of changes with what CHANGELOG.md holds below its title; bold there is in italics on a page."""
    _, _, listed = changes.partition("\n")
    return page.replace(CHANGES_HERE, re.sub(r"\*\*(.+?)\*\*", r"*\1*", listed.lstrip()))


def _with_buttons(path):
    """Write the book's configuration to a path, and return the path.

    Where GitHub builds the pages, it says from which repository: the pages then get buttons that open the notebook on
    Binder or Colab, show the repository, and open an issue. A book that is built elsewhere links to nothing.
    """
    config = yaml.safe_load(Path("_config.yml").read_text(encoding="utf-8"))
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        url = f"https://github.com/{repository}"
        config["repository"] = {"url": url, "branch": "main", "path_to_book": "notebooks"}
        config["html"] |= {"use_issues_button": True, "use_repository_button": True}
        hubs = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
        config["launch_buttons"] |= hubs
    write_text(path, yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
    return path


def executed_copy(name, profile):
    """The path of the executed copy of a notebook that its page shows.

    It is what this folder executed; in the profile ``published`` it may also be what book/published holds. A copy whose
    fingerprint is that of today goes first, then the newest. Raises StudyError where there is none, or one is damaged.
    """
    folders = [Path("build", profile, "executed"), *([Path("book/published")] if profile == "published" else [])]
    copies = [path for path in (folder / f"{name}.ipynb" for folder in folders) if path.exists()]
    if not copies:
        command = "make published" if profile == "published" else f"make notebook NAME={name} PROFILE={profile}"
        raise StudyError(f"There is no executed copy of {name}: run `{command}`, which makes one.")
    now = fingerprint(name, profile)
    return max(copies, key=lambda path: (facts_of(path).get("fingerprint") == now, facts_of(path).get("date", "")))


def facts_of(path):
    """What `study.book.run_notebook` wrote into an executed copy; StudyError where that is damaged."""
    return facts_in(read_copy(path))


def _print_seconds(copies):
    facts = {name: facts_of(path) for name, path in copies.items()}
    seconds = {name: one.get("seconds", 60 * one.get("minutes", 0)) for name, one in facts.items()}
    print("Seconds that each notebook took, longest first:")
    for name in sorted(seconds, key=seconds.get, reverse=True):
        print(f"{seconds[name]:8.0f}  {name}")


# ---- one page --------------------------------------------------------------------------------------------------------


def _page(name, executed, profile):
    """The notebook that becomes a page."""
    cells = [cell for cell in executed["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    injected = injected_parameters([source_of(cell) for cell in executed["cells"] if cell not in cells])
    facts = executed["metadata"].get("invkit", {})
    if facts.get("fingerprint") == fingerprint(name, profile):
        outputs = iter([cell for cell in cells if cell["cell_type"] == "code"])
        source = read_json(f"notebooks/{name}.ipynb")["cells"]
        cells = [next(outputs) | cell_ if cell_["cell_type"] == "code" else cell_ for cell_ in map(_unexecuted, source)]
        cells[0] = framed(cells[0], name, facts)
    else:
        cells = [_with_note(framed(cells[0], name, facts), name, facts, profile), *cells[1:]]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = naming_claims(source_of(cell), name)
        elif figure := cell["metadata"].get("mystnb", {}).get("figure"):
            figure["caption"] += _claims_of(name, figure["name"])
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = with_values(source_of(cell), injected)
        if cell["cell_type"] == "code":
            cell["source"] = FORMATTER.sub("", source_of(cell))
    ids = points_of(name)
    return executed | {"cells": [as_shown(cell, ids) for cell in cells]}


def framed(cell, name, facts):
    """A chapter's first cell with its answer in a box, and with what to know before and how long it takes to run.

    The answer is what stands between the title and the first figure. facts: of the executed copy, with its seconds.
    """
    title, _, rest = source_of(cell).partition("\n")
    first = FENCE.search(rest)
    answer, more = (rest[: first.start()], rest[first.start() :]) if first else (rest, "")
    if answer.strip() and "{admonition}" not in rest:
        answer = f"\n::::{{admonition}} The answer\n:class: answer\n{answer.strip()}\n::::\n\n"
    lines = []
    known = yaml.safe_load(BEFORE.read_text(encoding="utf-8")) if BEFORE.is_file() else {}
    if "*Before you start*" not in rest and name in known:
        lines.append(f"*Before you start*: {known[name]}")
    if "*Time to run*" not in rest and "seconds" in facts:
        lines.append(f"*Time to run*: {_duration(facts['seconds'])} with the parameters below ({facts['machine']}).")
    if changes := facts.get("vouched", []):
        items = "".join(f"<li>{escape(_sentence(change['why']))}</li>" for change in changes)
        summary = "<summary>Changed since it ran, without a change of its numbers</summary>"
        lines.append(f'\n<details class="changed">{summary}<ul>{items}</ul></details>')
    return cell | {"source": f"{title}\n{answer}{more.rstrip()}\n\n" + "\n".join(lines) + "\n"}


def _sentence(words):
    """Words that begin with a capital, unless with a name of code such as `invkit.fit`, and end with a full stop."""
    words = words.strip().rstrip(".")
    name = re.match(r"`|\w*[._(]\w", words)
    return f"{words if name else words[:1].upper() + words[1:]}."


def points_of(name, file=POINTS):
    """The ids of a chapter's results that are differences between shares, as book/points.yaml lists them."""
    return _loaded(file.read_text(encoding="utf-8")).get(name, []) if file.is_file() else []


def as_shown(cell, ids):
    """A cell whose glued numbers are as prose shows them: thousands have a comma, and the differences between shares,
    which have these ids, are in percentage points.

    The number itself reads "−14 percentage points", the ends of its interval "−18 to −10 points".
    """
    words = dict.fromkeys(ids, "percentage points") | {f"{id}_ci": "points" for id in ids}

    def said(output):
        glued = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if GLUED not in output.get("data", {}):
            return output
        text = "".join(output["data"][GLUED])
        if glued in words:
            text = text.replace("%", words[glued])
        if QUANTITY.fullmatch(text):
            text = THOUSANDS.sub(lambda number: f"{int(number[0]):,}", text)
        return output | {"data": output["data"] | {GLUED: text}}

    return cell | ({"outputs": [said(output) for output in cell["outputs"]]} if "outputs" in cell else {})


def naming_claims(source, name):
    """A page's prose in which the caption of each figure ends with the claims that it answers, or says that there are
    none."""

    def named(match):
        said = _claims_of(name, match["figure"])
        return f"{match['block']}{said.strip()}\n```" if said else match[0]

    return FIGURE.sub(named, source)


def _claims_of(name, figure):
    """A sentence, after a blank, on the claims that a figure of a chapter answers; empty where book/figures.yaml does
    not list the figure, which is called by what draws it, or by its name where a caption stands in a cell's metadata.
    """
    figures = _loaded(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    ids = figures.get(name, {}).get(figure)
    if ids is None:
        return ""
    if not ids:
        return " Neither paper makes a claim of this."
    claims = {claim["id"]: claim for claim in _loaded(CLAIMS.read_text(encoding="utf-8"))}
    whole, last = {}, ""
    for id, claim in claims.items():  # "… and more" goes on from the last title that does not
        goes_on = claim["title"].startswith("…")
        last = last if goes_on else claim["title"]
        whole[id] = f"{last}, {claim['title'].lstrip('… ')}" if goes_on else last
    titles = [f"*{whole[id]}*" for id in ids]
    said = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    papers = " and ".join(dict.fromkeys(claims[id]["paper"].partition(",")[0] for id in ids))
    what = "Claims" if len(titles) > 1 else "Claim"
    return f" {what} answered: {said} ({papers}; [verdict](12_claims.ipynb))."


@cache
def _loaded(text):
    """What a text of YAML says; it is parsed once, however many figures ask."""
    return yaml.safe_load(text)


def _duration(seconds):
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _unexecuted(cell):
    """A source's cell without its outputs, which are empty."""
    return {key: value for key, value in cell.items() if key not in ("outputs", "execution_count")}


def _with_note(cell, name, facts, profile):
    """The first cell of an old copy, with a note below its title; one line about it is printed."""
    again = "make published" if profile == "published" else f"make notebook NAME={name} PROFILE={profile}"
    when = f"was executed with version {facts.get('version', 'unknown')} on {facts.get('date', 'an unknown day')}"
    why = "its code or weights have changed since"
    print(f"{name} {when}; {why}. Its page shows that copy; `{again}` runs it again.", flush=True)
    title, line, rest = source_of(cell).partition("\n")
    note = f":::{{note}}\nThis page {when}; {why}; `{again}` runs it again.\n:::\n"
    return cell | {"source": f"{title}\n\n{note}{line}{rest}"}


def with_values(source, values):
    """The parameters cell with other values, its comments kept; values that are equal to the default stay as written.

    ``source``: assignments of literals; ``values``: {name: value} of some of them.
    """
    lines = source.splitlines()
    for statement in reversed(ast.parse(source).body):
        name = statement.targets[0].id
        if name not in values or values[name] == ast.literal_eval(statement.value):
            continue
        start, end = statement.lineno - 1, statement.end_lineno
        lines[start:end] = _assignment(name, values[name], _comments("\n".join(lines[start:end])))
    return "\n".join(lines)


def _comments(code):
    """The comments in some code, as one."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    said = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return "; ".join(words for words in said if words != "fmt: skip")  # which is for ruff


def _assignment(name, value, comment):
    """Lines of at most COLUMNS: ``name = value  # comment``, the comment above where it does not fit."""
    first, *more = _literal(value, f"{name} = ")
    if comment and len(first) + 4 + len(comment) <= COLUMNS:
        return [f"{first}  # {comment}", *more]
    above = textwrap.wrap(comment, COLUMNS, initial_indent="# ", subsequent_indent="# ")
    return [*above, first, *more]


def _literal(value, before="", after="", indent=0):
    """Lines of a literal as ruff would format it, the first after ``before``."""
    line = " " * indent + before + _plain(value) + after
    if len(line) <= COLUMNS or not isinstance(value, dict | list | tuple) or not value:
        return [line]
    opening, closing = {dict: "{}", list: "[]", tuple: "()"}[type(value)]
    if isinstance(value, dict):
        items = [_literal(one, f"{_plain(key)}: ", ",", indent + 4) for key, one in value.items()]
    else:
        items = [_literal(one, "", ",", indent + 4) for one in value]
    inner = [line for item in items for line in item]
    return [" " * indent + before + opening, *inner, " " * indent + closing + after]


def _plain(value):
    """A literal in one line, its strings in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_plain(key)}: {_plain(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_plain(one)}, " for one in value).rstrip(" ") + ")"
    if isinstance(value, float) and abs(value) >= 1e6 and float(f"{value:g}") == value:
        return f"{value:g}".replace("e+0", "e").replace("e+", "e")  # 2e12, not 2000000000000.0
    return repr(value)
