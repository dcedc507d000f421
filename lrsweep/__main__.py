"""`python -m lrsweep` is the command."""

import sys

from lrsweep.cli.app import main

if __name__ == "__main__":
    sys.argv[0] = "lrsweep"
    main()
