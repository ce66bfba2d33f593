"""Entry point of `python -m sweeper` and of the command `sweeper`."""

import os
import sys
from pathlib import Path


def main() -> int:
    """Run the command line of this process and return its exit code."""
    # Read when NumPy is imported, here and in processes that this one starts: a product on several cores takes those of other
    # processes that score, waits for them, and may end in other bits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from sweeper.cli import app, streams

        streams.protect()
        return app.main()
    except ModuleNotFoundError as error:
        print(_not_installed(error), file=sys.stderr)
        return 2


def _not_installed(error: ModuleNotFoundError) -> str:
    """Return what to do if this interpreter lacks a package: most often an environment is not active.

    Raises:
        ModuleNotFoundError: The module is one of ours.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "search_spaces", "sweeper", "trainables"):
        raise error
    has_environment = Path(".venv/bin/activate").exists()
    remedy = (
        "Activate the environment: . .venv/bin/activate" if has_environment else "Install first: make install"
    )
    return f"{sys.executable} has no package '{package}'.\n{remedy}"


if __name__ == "__main__":
    sys.exit(main())
