"""`python -m tastemaker`: the command line, also under `accelerate launch -m tastemaker`."""

import sys

from tastemaker.cli import main

sys.exit(main())
