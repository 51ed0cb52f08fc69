"""The book's side: what its notebooks share, and how they are run and compiled."""

from study.notebook import Study, StudyError, open

__all__ = ["Study", "StudyError", "open"]
