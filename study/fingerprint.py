"""What the outputs of a notebook depend on, as one hash: its fingerprint decides whether the notebook runs again.

It holds

- the notebook's code and the parameters that it is given;
- the code that the notebook reaches: every function, class and constant of invkit, recipes and study that it names, and
  those that these name in turn. Names are followed through imports, inside functions too, through what a package's
  `__init__` passes on, and through what `invkit` imports when it is first used. A module that is used as a whole, for
  instance by ``getattr``, counts as a whole. A data file beside a module and of its name, such as claims.yaml, counts
  with it;
- the SHA-256 of the weights that all this names (the shipped ones, or those in the folder INVKIT_WEIGHTS), and of the
  networks that their cards name;
- the fingerprints of the other notebooks that its code or parameters name, because it loads their results.

It does not hold the code of `CARRIERS`, which writes, reads, locks and reaches files and changes nothing in them: their
tests see to it that everything comes back as it was, and weights are in the fingerprint by their hash. Nor does it hold
prose, comments, docstrings, annotations, the encoding of text files and time stamps, or the versions of PyTorch, timm
and other packages: a new version of these moves numbers by less than their intervals, and would run the study for
hours. Which versions are meant is in requirements.txt, and each page states the version of invkit that made it.
"""

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from invkit.store import weights_folder
from study.copies import read_object
from study.notebook import default_parameters, read_json, source_of
from study.profiles import notebooks, parameters

ROOT = Path(__file__).parents[1]  # where the packages are
PACKAGES = ("invkit", "recipes", "study")
CARRIERS = (
    "invkit.store", "invkit.checkpoint", "invkit.data.cache", "invkit.network.reach", "invkit.network.state_dicts",
)  # fmt: skip


def fingerprint(name, profile):
    """SHA-256 of all that the outputs of one notebook depend on, in one profile."""
    given, cells = parameters(name, profile), code_cells(name)
    code_reached = reached("\n".join(cells))
    parts = {
        "code": cells,
        "parameters": given,
        "reached": code_reached,
        "weights": _weights(_words(name, given) | _constants([*cells, *code_reached.values()])),
        "results": {other: fingerprint(other, profile) for other in notebooks_needed(name, profile)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def notebooks_needed(name, profile):
    """The notebooks whose results this one loads: the others that its code or parameters name."""
    words = _words(name, parameters(name, profile))
    return [other for other in notebooks() if other != name and other in words]


def code_cells(name):
    """The code of a notebook's cells, without comments."""
    cells = read_json(f"notebooks/{name}.ipynb")["cells"]
    return [normalised(source_of(cell)) for cell in cells if cell["cell_type"] == "code"]


@cache
def normalised(code):
    """The code without comments, docstrings and annotations; as it is where it is no plain Python."""
    try:
        return ast.unparse(_Bare().visit(ast.parse(code)))
    except SyntaxError:  # a notebook's magic, such as %timeit
        return code


def reached(code):
    """``{"invkit.metrics.psnr": its code, ...}`` of all that a notebook's code names, and that this names in turn."""
    notebook = _parsed(code, "")
    found, todo = {}, _used(notebook, notebook.always + [line for lines in notebook.defined.values() for line in lines])
    while todo:
        module, name = todo.pop()
        if (module, name) in found:
            continue
        found[module, name], used = _definition(module, name)
        todo |= used | {(module, "")}  # what runs when the module is imported counts too
    code = {
        f"{module}.{name}": text for (module, name), text in sorted(found.items()) if text and module not in CARRIERS
    }
    return code | {
        f"/{file.relative_to(ROOT)}": file.read_text(encoding="utf-8")
        for module, _ in sorted(found)
        for file in _data(module)
    }


def modules(code):
    """The modules of which a notebook's code reaches something."""
    names = (name.rpartition(".")[0] for name in reached(code))
    return sorted({name for name in names if name.partition(".")[0] in PACKAGES})


# ---- code ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A parsed module."""

    name: str
    package: str  # its own name, where it is the __init__ of a package
    imported: dict  # {name: what it stands for, (module, name there, ...)}
    defined: dict  # {name: the statements that define it}
    always: list  # all other statements


class _Bare(ast.NodeTransformer):
    """Take away what changes no result: docstrings, annotations, and the encoding of text, always UTF-8."""

    def visit_Call(self, node):
        node.keywords = [one for one in node.keywords if one.arg != "encoding"]
        return self.generic_visit(node)

    def _without_docstring(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = _without_docstring

    def visit_FunctionDef(self, node):
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        if not re.search(
            r"\b(ClassVar|InitVar)\b", ast.unparse(node.annotation)
        ):  # which mean something to dataclasses
            node.annotation = ast.Constant(...)
        return self.generic_visit(node)


def _data(module):
    """The data files that belong to a module: beside it, and of its name."""
    file = _file(module)
    return sorted(one for one in file.parent.glob(f"{file.stem}.*") if one.suffix in (".yaml", ".json", ".csv", ".txt"))


@cache
def _file(module):
    """The file of a module of ours, or None."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _module(name):
    return _parsed(_file(name).read_text(encoding="utf-8"), name, _file(name).stem == "__init__")


@cache
def _definition(module, name):
    """The code that defines a name in a module (all other statements for ""), and the definitions that it names."""
    here = _module(module)
    statements = here.defined[name] if name else here.always
    return "\n".join(map(ast.unparse, statements)), _used(here, statements)


def forget():
    """Forget the code that was parsed, because a file has changed since."""
    for function in (_file, _module, _definition):
        function.cache_clear()


def _parsed(text, name, is_package=False):
    try:
        tree = _Bare().visit(ast.parse(text))
    except SyntaxError:
        tree = ast.Module([])
    package = name if is_package else name.rpartition(".")[0]
    imported, defined, always = {}, {}, []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined.setdefault(statement.name, []).append(statement)
            continue
        imported |= _imports(statement, package)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        stored = _stored(statement)
        for one in stored:
            defined.setdefault(one, []).append(statement)
        if not stored and not _is_main(statement):
            always.append(statement)
    if "__getattr__" in defined and "_FUNCTIONS" in defined:  # imported when first used, as in invkit/__init__.py
        lazy = ast.literal_eval(defined["_FUNCTIONS"][0].value)
        imported |= {function: (f"{name}.{module}", function) for function, module in lazy.items()}
    return _Module(name, package, imported, defined, always)


def _is_main(statement):
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def _stored(node):
    """The names to which a statement assigns."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _imports(node, package):
    """``{name: (module, name there)}`` of all imports in a statement, those inside functions too."""
    found = {}
    for one in ast.walk(node):
        if isinstance(one, ast.Import):
            for alias in one.names:
                root = alias.name.partition(".")[0]
                found |= {alias.asname: (alias.name,)} if alias.asname else {root: (root,)}
        elif isinstance(one, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - one.level + 1] if one.level else []
            base = ".".join([*parents, *([one.module] if one.module else [])])
            found |= {alias.asname or alias.name: (base, alias.name) for alias in one.names}
    return found


def _used(module, statements):
    """The definitions, (module, name), that some statements of a module name."""
    found = set()
    for statement in statements:
        imported = module.imported | _imports(statement, module.package)
        names = _Names()
        names.visit(statement)
        for root, *rest in names.found:
            if root in imported:
                found |= _resolved(*imported[root], *rest)
            elif root in module.defined and module.name:
                found.add((module.name, root))
        for factory in names.factories:
            found |= _resolved(*factory)
    return found


class _Names(ast.NodeVisitor):
    """Collect the dotted names that some code uses, ("invkit", "data", "load"), but no variable of a function."""

    def __init__(self):
        self.found, self.factories, self._own = set(), set(), [set()]

    def visit_FunctionDef(self, node):
        arguments = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
        self._own.append(self._own[-1] | arguments | _stored(node))
        self.generic_visit(node)
        self._own.pop()

    visit_Lambda = visit_FunctionDef

    def visit_Attribute(self, node):
        parts, base = [], node
        while isinstance(base, ast.Attribute):
            parts.insert(0, base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            self.visit(base)
        elif base.id not in self._own[-1]:
            self.found.add((base.id, *parts))

    def visit_Name(self, node):
        if node.id not in self._own[-1]:
            self.found.add((node.id,))

    def visit_Constant(self, node):  # "package.module:factory"
        if isinstance(node.value, str) and re.fullmatch(rf"({'|'.join(PACKAGES)})\.[\w.]+:\w+", node.value):
            self.factories.add(tuple(node.value.split(":")))


def _resolved(module, *names):
    """The definitions that a dotted name in a module stands for; all of a module where it stands for the module."""
    if module.partition(".")[0] not in PACKAGES or not _file(module):
        return set()
    here = _module(module)
    if not names:
        return _whole(here)
    name, *rest = names
    target = here.imported.get(name)
    if name in here.defined:
        return {(module, name)}
    if target and target != (module, name):
        return _resolved(*target, *rest)
    if _file(f"{module}.{name}"):
        return _resolved(f"{module}.{name}", *rest)
    return _whole(here)  # an attribute of the module itself, such as __name__


def _whole(module):
    found = {(module.name, name) for name in ("", *module.defined)}
    if module.package == module.name:  # what a package passes on is its content
        for target in module.imported.values():
            found |= _resolved(*target) if target[0].startswith(f"{module.name}.") else set()
    return found


# ---- weights and results ---------------------------------------------------------------------------------------------


def _words(name, given):
    """The words of all strings in a notebook's code and in the parameters that it is given."""
    text = json.dumps([sorted(_constants(code_cells(name))), default_parameters(f"notebooks/{name}.ipynb"), given])
    return set(re.findall(r"[\w.-]+", text))


def _constants(codes):
    """All strings in some code, as a whole."""
    return {one for code in codes for one in _strings(code)}


@cache
def _strings(code):
    try:
        nodes = ast.walk(ast.parse(code))
    except SyntaxError:
        return set(re.findall(r"[\w.-]+", code))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _weights(words):
    """``{name: SHA-256}`` of the weights that are among the words, and of the networks that their cards name."""
    cards = {path.parent.name: path for path in weights_folder(Path()).glob("*/card.json")}
    found, todo = {}, words & cards.keys()
    while todo:
        name = todo.pop()
        card = read_object(cards[name], "fetch or train it again")
        found[name] = card.get("sha256")
        todo |= {card.get("network")} & cards.keys() - found.keys()
    return found
