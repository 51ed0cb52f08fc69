"""Profiles: which notebooks there are, and with which parameters a profile runs them.

A profile is a file `profiles/<name>.yaml` of ``notebook: {parameter: value}``; what it does not name keeps the
notebook's own default. All paths are relative to the repository's root.
"""

import math
from functools import cache
from pathlib import Path

import yaml

from invkit.store import DEEPEST, too_deep
from study.notebook import StudyError, check_parameters, default_parameters


def notebooks():
    """The study's chapters: the names of all files in notebooks/, in order."""
    return sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))


def parameters(name, profile):
    """The profile's parameters for one notebook, checked against the notebook's defaults.

    Raises StudyError where there is no such profile, where it is no valid YAML, where it names a notebook or a
    parameter that does not exist, and where a value is of another type than the default.
    """
    known = sorted(path.stem for path in Path("profiles").glob("*.yaml"))
    if profile not in known:  # also where a path leads to a file, since results go to a folder of that name
        names = ", ".join(known) or "none here: go to the repository's folder"
        raise StudyError(f"There is no profile {profile!r}; there are {names}.")
    path = Path("profiles") / f"{profile}.yaml"
    try:
        chapters = _read(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise StudyError(f"{path} is not in UTF-8: {error}.") from None
    for chapter in chapters:
        if chapter not in notebooks():
            raise StudyError(f"{path} has parameters for {chapter}, which is not in notebooks/.")
    given = chapters.get(name) or {}
    try:
        check_parameters(name, default_parameters(f"notebooks/{name}.ipynb"), given)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{path}: {error}") from None
    return given


def setting(name, given, kind):
    """The number that `make NAME=…` was given, as int or float; StudyError for anything but a finite one above 0."""
    try:
        if 0 < (number := kind(str(given))) < math.inf:
            return number
    except ValueError:
        pass
    raise StudyError(f"{name} is a number above 0, such as {name}=1, not {given!r}.")


@cache
def _read(path, text):
    """``{notebook: {parameter: value} or None}`` of a profile; a slip in it is a StudyError with its line."""
    try:
        _check_events(path, text)
        node, chapters = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise StudyError(f"{path}, line {mark.line + 1}: this is no valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from None
    except (ValueError, KeyError) as error:  # such as the 45th of a month, or a number of thousands of digits
        raise StudyError(f"{path} has a value that is none ({error}): write it otherwise, or in quotes.") from None
    if chapters is None:
        return {}
    wanted = "notebook: {parameter: value}"
    if not isinstance(chapters, dict):
        raise StudyError(f"{path}, line {node.start_mark.line + 1}: `{wanted}` is expected here, not {chapters!r}.")
    if twice := _stands_twice(node):
        place = f"{path}, line {twice.start_mark.line + 1}"
        raise StudyError(f"{place}: {twice.value!r} stands here a second time: keep one of both.")
    for key, value in node.value:
        given = chapters.get(key.value)
        if given is not None and not isinstance(given, dict):
            place = f"{path}, line {value.start_mark.line + 1}"
            raise StudyError(f"{place}: the parameters of {key.value} are expected as `{wanted}`, not {given!r}.")
    return chapters


def _check_events(path, text):
    """Refuse, before anything is built of it, a text that is nested as no profile is, or has an alias.

    To build thousands of levels takes minutes, and a few lines of aliases can stand for gigabytes.
    """
    nested = StudyError(f"{path} is nested more than {DEEPEST} levels deep: write its parameters flatter.")
    if too_deep(text):
        raise nested
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise StudyError(f"{path} has an alias (*name): write out what it stands for.")
        if depth > DEEPEST:
            raise nested


def _stands_twice(node):
    """The first key that a mapping, at any depth, has already; None where all differ."""
    if isinstance(node, yaml.ScalarNode):
        return None
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_stands_twice, node.value)), None)
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            return key
        seen.add(key.value)
        if twice := _stands_twice(value):
            return twice
    return None
