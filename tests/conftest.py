"""Settings every test shares."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # charts are drawn to files, never to a screen
