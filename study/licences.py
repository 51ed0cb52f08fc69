"""Under which licence everything is: each pinned package, as its own metadata say, and each network, as its card says.

    python -m study.licences    # replaces the tables of book/licences.md

in an environment that holds all that is pinned, the packages of CUDA too.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from study.notebook import StudyError, read_json
from study.page_tables import replace_between

PAGE = Path("book/licences.md")
BEGIN, END = "<!-- made by study/licences.py: begin -->", "<!-- end -->"
PINS = ("constraints.txt", "requirements-networks.txt", "requirements-nodeps.txt", "requirements-cluster.txt")
# Those whose packages hold neither a word on it nor the licence itself.
ELSEWHERE = {"torchsummary": "MIT (its repository)", "cuda-toolkit": "NVIDIA, proprietary (it holds no file)"}
LONGEST = 110  # characters of a licence's name; what is longer is its text


def pins():
    """``{name: version}`` of all packages that the Makefile installs."""
    lines = [line for file in PINS for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return {match[1]: match[2] for line in lines if (match := re.match(r"([\w.-]+)==(\S+)", line))}


def licence(name):
    """What an installed package says: its expression, else its words, its classifiers or the title of its licence."""
    found = distribution(name)
    said = found.metadata.get("License-Expression") or (found.metadata.get("License") or "").strip()
    if 0 < len(said) <= LONGEST and "\n" not in said and said != "UNKNOWN" and "Copyright" not in said:
        return said
    classified = [
        one.rpartition(" :: ")[2] for one in found.metadata.get_all("Classifier") or [] if "License ::" in one
    ]
    if classified:
        return ", ".join(classified)
    files = [file for file in found.files or [] if re.search(r"dist-info/(licenses/)?LICEN[CS]E", str(file))]
    titles = [line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return next((title for title in titles if "icense" in title), ELSEWHERE.get(name, ""))


def packages():
    """``{name: (version, licence)}``, in the order of the alphabet."""
    try:
        return {
            name: (version, licence(name)) for name, version in sorted(pins().items(), key=lambda pin: pin[0].lower())
        }
    except PackageNotFoundError as error:
        raise StudyError(f"{error.name} is not installed: run this after `make TORCH=cuda .venv/installed`.") from None


def shipped_networks():
    """``{name: (data, licence)}`` of the shipped networks, as their cards say."""
    cards = {path.parent.name: read_json(path) for path in sorted(Path("weights").glob("*/card.json"))}
    return {name: (card["data"], card["licence"]) for name, card in cards.items()}


def of_networks():
    """Rows of the table of networks, those together that share data and licence: (names, data, licence)."""
    together = {}
    for name, facts in shipped_networks().items():
        together.setdefault(facts, []).append(name)
    return [(", ".join(names), *facts) for facts, names in together.items()]


def _table(head, rows):
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def main():
    try:
        rows = [(name, *facts) for name, facts in packages().items()]
    except FileNotFoundError as error:
        sys.exit(f"There is no {error.filename} here: run this in the folder of the repository.")
    except StudyError as error:
        sys.exit(str(error))
    networks = _table(("networks", "trained on", "licence of that"), of_networks())
    packages_ = _table(("package", "version", "licence"), rows)
    replace_between(PAGE, BEGIN, END, [f"## Shipped networks\n\n{networks}\n\n## Packages\n\n{packages_}"])


if __name__ == "__main__":
    main()
