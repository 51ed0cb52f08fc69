"""What may import what: invkit <- recipes <- study, no circle, few floors, and a small library."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("invkit", "recipes", "study")
FLOORS = 10  # of invkit: how many modules stand on each other at most
CODE_LINES = 6995  # of invkit: without blank lines, comments and docstrings, which may be as long as they help


def name_of(path):
    """ "invkit.dci.chain" of invkit/dci/chain.py, "invkit.dci" of invkit/dci/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def imports(module, inside_functions):
    """Modules of ours that one imports; those of `if TYPE_CHECKING:`, which are never imported, do not count."""
    found = set()
    for node in nodes(ast.parse(MODULES[module].read_text()), inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return {one for one in found if one in MODULES} - {module}


def nodes(tree, inside_functions):
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if not typing and (inside_functions or not isinstance(child, ast.FunctionDef)):
                todo.append(child)


@pytest.mark.parametrize(
    ("package", "others"), [("invkit", ("recipes", "study")), ("recipes", ("study",))], ids=["invkit", "recipes"]
)
def test_imports_run_one_way(package, others):
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if module.partition(".")[0] == package
        for other in imports(module, True)
        if other.partition(".")[0] in others
    ]
    assert not wrong


def floors():
    """{module: on how many others it stands}, 1 for a module that imports none; raises ValueError for a circle."""
    known, under_way = {}, []

    def floor(module):
        if module in under_way:
            raise ValueError(f"a circle of imports: {' -> '.join([*under_way[under_way.index(module) :], module])}")
        if module not in known:
            under_way.append(module)
            known[module] = 1 + max((floor(other) for other in imports(module, False)), default=0)
            under_way.pop()
        return known[module]

    for module in MODULES:
        floor(module)
    return known


def test_no_module_imports_itself_by_way_of_others():
    floors()


def test_the_library_has_few_floors():
    highest = {module: floor for module, floor in floors().items() if module.startswith("invkit")}
    top = max(highest, key=highest.get)
    assert highest[top] <= FLOORS, f"{top} stands on {highest[top] - 1} others"


def code_lines_of(path):
    """How many lines of a file hold code."""
    text = path.read_text()
    tree = ast.parse(text)
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = [node.body[0] for node in scopes if ast.get_docstring(node, clean=False) is not None]
    prose = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in prose and line.strip() and line.strip()[0] != "#")


def test_the_library_is_small():
    assert sum(map(code_lines_of, (ROOT / "invkit").rglob("*.py"))) <= CODE_LINES
