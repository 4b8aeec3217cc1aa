"""`python -m lmvp`: the `lmvp` command, where its script is not on the PATH."""

import sys

from lmvp.commands import main

if __name__ == "__main__":
    sys.exit(main())
