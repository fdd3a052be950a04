"""`python -m tastemaker`: the command line, also under `accelerate launch -m tastemaker`."""

import sys

from tastemaker.cli.command_line import main

sys.exit(main())
