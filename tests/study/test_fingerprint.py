"""What a change in the code runs again: the notebooks that use it, and no others."""

from pathlib import Path

import pytest
from helpers import write_notebook

from study import fingerprint
from study.profiles import notebooks

MODULES = {
    "invkit/__init__.py": """
from importlib import import_module
_FUNCTIONS = {"load_inverter": "inverters"}
def __getattr__(name):
    return getattr(import_module(f"invkit.{_FUNCTIONS[name]}"), name)
""",
    "invkit/inverters.py": """
from invkit import store
from invkit.files import CARD
def load_inverter(name):
    return store.load(name), open(CARD).read()
""",
    "invkit/store.py": """
from invkit.files import suffix
FILE = "card.json"
def load(name):
    return FILE + suffix(name)
def save(name):
    return 1
""",
    "invkit/files.py": """
CARD = "card.json"
def suffix(name):
    return ".new"
""",
    "invkit/metrics.py": """
import math
def psnr(a, b):
    return math.log(a - b)
def ssim(a, b):
    return _window(a) - _window(b)
def _window(a):
    return a
""",
    "invkit/dci/__init__.py": """
from invkit.dci.training import Schedule, invert_classifier
""",
    "invkit/dci/training.py": """
from dataclasses import dataclass
from .chain import Chain
@dataclass
class Schedule:
    steps: int = 3
def invert_classifier(model, metrics=None):
    from invkit.dci import search
    return search.best(Chain(model)), metrics
def unused():
    return 1
""",
    "invkit/dci/chain.py": """
LAYERS = 4
class Chain:
    def __init__(self, model):
        self.layers = LAYERS
""",
    "invkit/dci/search.py": """
def best(chain):
    return chain
""",
    "invkit/small.py": """
def make():
    return 1
""",
    "study/__init__.py": "",
    "study/notebook.yaml": "words: 1",
    "study/notebook.py": """
def open(name):
    return name
""",
}
NOTEBOOKS = {
    "01_train": "from invkit import dci\nfrom study import notebook\nstudy = notebook.open('01_train')\n"
    "dci.invert_classifier(dci.Schedule())",
    "02_measure": "import invkit\nfrom invkit.metrics import psnr\nmodel = 'invkit.small:make'\n"
    "psnr(invkit.load_inverter('dci-small'), 1)",
    "03_read": "from study import notebook\nfrom invkit import metrics  # not used\n"
    "study = notebook.open('03_read')\nstudy.results_of('02_measure')",
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of three notebooks with packages of its own; the working directory."""
    for file, text in MODULES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    for name, code in NOTEBOOKS.items():
        write_notebook(tmp_path / f"notebooks/{name}.ipynb", [("code", "n = 1", "parameters"), ("code", code)])
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/quick.yaml").write_text("")
    monkeypatch.delenv("INVKIT_WEIGHTS", raising=False)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    fingerprint.forget()


def fingerprints():
    fingerprint.forget()
    return {name: fingerprint.fingerprint(name, "quick") for name in notebooks()}


@pytest.mark.parametrize(
    ("file", "before", "after", "again"),
    [
        # What one uses runs it again, and whoever loads its results:
        ("invkit/metrics.py", "math.log(a - b)", "math.log(b - a)", {"02_measure", "03_read"}),
        ("invkit/dci/training.py", "search.best(Chain(model))", "Chain(model)", {"01_train"}),  # passed on by a package
        ("invkit/dci/training.py", "steps: int = 3", "steps: int = 4", {"01_train"}),
        ("invkit/dci/search.py", "return chain", "return None", {"01_train"}),  # imported inside a function
        ("invkit/dci/chain.py", "LAYERS = 4", "LAYERS = 5", {"01_train"}),  # by way of another module
        ("invkit/files.py", '"card.json"', '"label.json"', {"02_measure", "03_read"}),  # imported when first used
        ("invkit/files.py", '".new"', '".old"', {"02_measure", "03_read"}),  # by way of a module that carries files
        ("invkit/small.py", "return 1", "return 2", {"02_measure", "03_read"}),  # named by a string
        ("study/notebook.py", "return name", "return 1", {"01_train", "03_read"}),
        ("invkit/metrics.py", "import math\n", "import math\nprint('imported')\n", {"02_measure", "03_read"}),
        ("study/notebook.yaml", "words: 1", "words: 2", {"01_train", "03_read"}),  # data of a module
        # Nothing else does:
        ("invkit/metrics.py", "return a\n", "return 2 * a\n", set()),
        ("invkit/dci/training.py", "return 1", "return 2", set()),
        ("invkit/store.py", '"card.json"', '"label.json"', set()),  # which carries files
        ("invkit/inverters.py", "open(CARD)", 'open(CARD, encoding="utf-8")', set()),
        ("invkit/metrics.py", "def psnr(a, b):", 'def psnr(a: int, b) -> int:\n    """Words."""  # more words', set()),
        ("invkit/dci/training.py", "steps: int = 3", "steps: float = 3", set()),
    ],
)  # fmt: skip
def test_a_change_runs_again_what_uses_it_and_nothing_else(small, file, before, after, again):
    was = fingerprints()
    text = (small / file).read_text()
    assert text.count(before) == 1
    (small / file).write_text(text.replace(before, after))
    now = fingerprints()
    assert {name for name in now if now[name] != was[name]} == again


def test_a_function_s_own_variable_is_no_module(small):
    """The argument `metrics` of invert_classifier has the name of a module, which its notebook does not use."""
    code = "\n".join(fingerprint.code_cells("01_train"))
    assert fingerprint.modules(code) == [
        "invkit.dci.chain",
        "invkit.dci.search",
        "invkit.dci.training",
        "study.notebook",
    ]


def test_a_module_that_is_used_as_a_whole_counts_as_a_whole(small):
    names = set(fingerprint.reached("from invkit import metrics\ngetattr(metrics, 'psnr')"))
    assert {"invkit.metrics.psnr", "invkit.metrics.ssim", "invkit.metrics._window"} <= names
    names = set(fingerprint.reached("from invkit import dci\nprint(dci)"))
    assert {"invkit.dci.training.Schedule", "invkit.dci.training.invert_classifier"} <= names


def test_comments_and_prose_of_a_notebook_run_nothing_again(small):
    was = fingerprints()
    cells = [
        ("code", "n = 1  # how many", "parameters"),
        ("markdown", "# Words"),
        ("code", f"# Train.\n{NOTEBOOKS['01_train']}"),
    ]
    write_notebook(small / "notebooks/01_train.ipynb", cells)
    assert fingerprints() == was


def test_magics_are_taken_as_they_are(small):
    write_notebook(
        small / "notebooks/01_train.ipynb", [("code", "n = 1", "parameters"), ("code", "%timeit f('dci-small')")]
    )
    assert fingerprint.code_cells("01_train")[1] == "%timeit f('dci-small')"
    assert fingerprints()["01_train"]


def test_weights_are_followed_to_the_networks_that_their_cards_name(small):
    for name, network in (("dci-small", "glyphs-0"), ("glyphs-0", None), ("other", None)):
        Path("weights", name).mkdir(parents=True)
        write_card(name, network, "a")
    was = fingerprints()
    write_card("other", None, "b")
    assert fingerprints() == was
    write_card("glyphs-0", None, "b")
    now = fingerprints()
    assert now["01_train"] == was["01_train"] and now["02_measure"] != was["02_measure"]


def write_card(name, network, sha256):
    Path("weights", name, "card.json").write_text(f'{{"sha256": "{sha256}", "network": "{network}"}}')


def test_the_claims_are_tied_to_few_modules(monkeypatch):
    """Chapter 12 loads result files: no inverter and no training counts among what it depends on."""
    monkeypatch.chdir(Path(__file__).parents[2])
    fingerprint.forget()
    tied = fingerprint.modules("\n".join(fingerprint.code_cells("12_claims")))
    assert len(tied) <= 8 and not [
        module for module in tied if module.startswith(("invkit.dci", "invkit.ffi", "recipes"))
    ]


def test_the_library_is_followed_through_what_it_imports_when_first_used():
    fingerprint.forget()
    code = "import invkit\nfrom invkit import dci\ninvkit.load_inverter, invkit.data.load, dci.invert_classifier"
    names = fingerprint.reached(code)
    kinds = {
        "invkit.dci.inverter.ClassifierInverter",
        "invkit.ffi.inverter.LogitInverter",
        "invkit.inverters.load_inverter",
    }
    assert {
        *kinds,
        "invkit.inverters.load_inverter",
        "invkit.data.sources.load",
        "invkit.dci.training.train_chain",
    } <= names.keys()
    assert not [name for name in names if name.startswith(("study.", "recipes."))]


def test_a_notebook_may_load_the_results_of_one_that_stands_after_it(small):
    write_notebook(small / "notebooks/00_first.ipynb", [("code", "n = 1", "parameters"), ("code", "r = '03_read'")])
    assert fingerprint.notebooks_needed("00_first", "quick") == ["03_read"]
    assert fingerprint.notebooks_needed("03_read", "quick") == ["02_measure"]
