"""`python -m lrsweep` is the command."""

from lrsweep.cli.app import main

if __name__ == "__main__":
    main()
