"""Entry point of `python -m sweeper` and of the command `sweeper`."""

import sys

from sweeper.cli import app, streams


def main() -> int:
    """Run the command line of this process and return its exit code."""
    streams.protect()
    return app.main()


if __name__ == "__main__":
    sys.exit(main())
