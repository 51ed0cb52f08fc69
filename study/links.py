"""The works that the book cites: each is cited, each citation leads to one, and each says where it is found.

    python -m study.links    # also asks whether the addresses exist, where there is a network

`study.page_report` prints the same at its end, so that `make pages` does.
"""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

DOI = re.compile(r"10\.\d{4,9}/[^\s{}\"]+")
ARXIV = re.compile(r"10\.48550/arXiv\.\d{4}\.\d{4,5}")
ADDRESS = re.compile(r"https://[\w-]+(\.[\w-]+)+(/[^\s{}<>\"]*)?")
ENTRY = re.compile(r"^@\w+\{([^,\s]+),(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?\s*$", re.MULTILINE)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
SECONDS = 10  # that a site may take to answer
GONE = (404, 410)  # other refusals come from sites that do not like to be asked by programs


def bibliography(path=Path("book/references.bib")):
    """{key: {field: value}} of a file of BibTeX."""
    return {key: dict(FIELD.findall(fields)) for key, fields in ENTRY.findall(path.read_text(encoding="utf-8"))}


def prose():
    """The text of all pages, notebooks included."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("book").glob("*.md"))]
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return "\n".join(texts)


def faults(works, text):
    """Sentences about what is wrong with works {key: {field: value}} and the text that cites them."""
    cited = {key.strip() for keys in CITATION.findall(text) for key in keys.split(",")}
    found = [f"{key} is in the bibliography, and no page cites it." for key in works if key not in cited]
    found += [f"{key} is cited, and is not in the bibliography." for key in sorted(cited - works.keys())]
    for key, fields in works.items():
        doi, url, preprint = fields.get("doi"), fields.get("url"), re.search(r"arXiv:(\S+)", fields.get("journal", ""))
        if doi is None and url is None:
            found.append(f"{key} has neither a DOI nor an address.")
        if doi is not None and not (ARXIV if "arXiv" in doi else DOI).fullmatch(doi):
            found.append(f"{key} has a DOI that is none: {doi}.")
        if url is not None and not ADDRESS.fullmatch(url):
            found.append(f"{key} has an address that is none: {url}.")
        if doi is not None and preprint and not doi.endswith(f"arXiv.{preprint[1]}"):
            found.append(f"{key} is arXiv:{preprint[1]}, and its DOI is another's: {doi}.")
    bad = [url for url in LINK.findall(text) if not ADDRESS.fullmatch(url)]
    return found + [f"A page links to {url}, which is no address." for url in bad]


def addresses(works, text):
    """Where the works and the links of the text lead, each once."""
    places = [fields.get("url") or f"https://doi.org/{quote(fields['doi'])}" for fields in works.values()]
    return list(dict.fromkeys([*places, *LINK.findall(text)]))


class _Stays(HTTPRedirectHandler):
    """A redirection is an answer: a DOI that leads somewhere exists."""

    def redirect_request(self, *_):
        return None


def status_of(url):
    """The status with which a site answers; None where it does not."""
    request = Request(url, method="HEAD", headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with build_opener(_Stays).open(request, timeout=SECONDS) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return None


def check_citations(ask=status_of):
    """(sentences about faults, one sentence on what was asked of the network). ask: `status_of`, or a stand-in."""
    works, text = bibliography(), prose()
    found = faults(works, text)
    if found:
        return found, "The addresses were not asked for."
    places = addresses(works, text)
    if ask(places[0]) is None and ask(places[-1]) is None:
        return [], f"No network here: the form of {len(places)} cited addresses was checked, not whether they exist."
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(places, pool.map(ask, places), strict=True))
    gone = [f"{place} does not exist (status {status})." for place, status in answers.items() if status in GONE]
    silent = sum(status is None for status in answers.values())
    return gone, f"{len(places)} cited addresses asked for: {len(gone)} do not exist, {silent} did not answer."


def main():
    found, words = check_citations()
    print(*found, words, sep="\n")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main()))
