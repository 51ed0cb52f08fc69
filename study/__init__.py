"""The book's side: what its notebooks share, and how they are run and compiled."""
