"""Going on with deliveries for as long as a driver works, without asking much of the machine or of MLflow."""

import select
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TextIO

from sweeper.tracking.store import HeldError, UndeliveredError

POLL_S = 5.0
REST = 9
"""Following rests this many times as long as it worked, so it takes a tenth of a core at most."""
MAX_WAIT_S = 60.0

CatchUp = Callable[[], list[str]]
"""Delivers what is committed; returns a line for each file that it could not make."""


def follow(projecting: Callable[[], AbstractContextManager[CatchUp]], stop: TextIO) -> None:
    """Deliver what is committed until asked to stop, and then what is left; complains of the same thing once.

    Args:
        projecting: Begins to project a home; after an error that is done again.
        stop: Ends, or has a line, when this shall stop.

    Raises:
        InputError: No ledger, no such sweep, or a store that cannot be one.
        UndeliveredError: What was left could not be delivered.
    """
    catch_up: CatchUp | None = None
    complaint, num_failures, wait_s, is_last = "", 0, 0.0, False
    with ExitStack() as stack:
        while not is_last:
            is_last = bool(select.select([stop], [], [], wait_s)[0])
            began_s = time.monotonic()
            try:
                catch_up = catch_up or stack.enter_context(projecting())
                found = "\n".join(catch_up())
                num_failures = 0
                wait_s = max(POLL_S, REST * (time.monotonic() - began_s))
            except (UndeliveredError, HeldError) as error:
                stack.close()
                catch_up, found = None, str(error)
                num_failures += 1
                wait_s = min(2.0**num_failures, MAX_WAIT_S)
            if is_last and found:
                raise UndeliveredError(found)
            if found not in ("", complaint):
                print(found, file=sys.stderr, flush=True)
            complaint = found
