"""Entry point of `python -m lmvp`, for environments in which the `lmvp` script is not on the PATH."""

import sys

from lmvp.cli import main

if __name__ == "__main__":
    sys.exit(main())
