"""Entry point of `python -m sweeper`."""

import sys

from sweeper.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
