"""`python -m invkit`: see `invkit.cli`."""

import sys

from invkit.cli import main

sys.exit(main())
