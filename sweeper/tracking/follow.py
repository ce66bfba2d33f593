"""Keep delivering while a driver works, with little load on the machine and on MLflow."""

import select
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TextIO

from sweeper.tracking.store import HeldError, UndeliveredError

POLL_S = 5.0
REST = 9
"""Pause after each delivery, as a multiple of the time that it took: at most a tenth of a core is used."""
MAX_WAIT_S = 60.0

CatchUp = Callable[[], list[str]]
"""Delivers what is committed and returns a line for each file that could not be made."""


def follow(projecting: Callable[[], AbstractContextManager[CatchUp]], asked: TextIO) -> None:
    """Deliver what is committed, now and then and when asked to; a repeated complaint is printed once.

    Args:
        projecting: Starts a delivery session for a home; called again after an error.
        asked: Stream that receives a line when something should be delivered at once, and ends when what is left should
            be delivered for the last time.

    Raises:
        InputError: There is no ledger, a sweep is unknown, or the store is invalid.
        UndeliveredError: What was left could not be delivered.
    """
    catch_up: CatchUp | None = None
    complaint, num_failures, wait_s, is_last = "", 0, 0.0, False
    with ExitStack() as stack:
        while not is_last:
            is_last = bool(select.select([asked], [], [], wait_s)[0]) and not asked.readline()
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
