"""`python -m lrsweep` is the command."""

import os
import sys

if __name__ == "__main__":
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path[0] == os.getcwd() != home:
        del sys.path[0]  # as for the command `lrsweep`: a torch.py in the current folder must not hide torch
    from lrsweep.cli.app import main

    sys.argv[0] = "lrsweep"
    main()
