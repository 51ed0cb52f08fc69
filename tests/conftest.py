"""Settings every test shares."""

import os
import signal
import sys

os.environ.setdefault("MPLBACKEND", "Agg")  # charts are drawn to files, never to a screen
# The networks of the tests are too small to share among threads: these would wait for each other, and for the tests
# that run beside them, several times as long as they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The checker of notebooks would compile a grammar of web addresses, for seconds (`study.pages.NO_GRAMMAR`).
sys.modules.setdefault("rfc3987_syntax", None)
# A shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
