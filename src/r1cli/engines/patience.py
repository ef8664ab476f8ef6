"""Waiting for a server: until it is there or the time is up, and not in silence."""

import logging
from time import monotonic, sleep

SAID_AFTER = 3.0  # seconds; a server that takes no longer needs no word


def say_waiting(what: str, trouble: str, seconds: float) -> None:
    """What is waited for and why, on the log that `r1` shows."""
    logging.getLogger("r1cli").warning("waiting up to %.0f s for %s (%s)", seconds, what, trouble)


class Patience:
    """Tries again until `seconds` are over; says once, after a while, what is waited for."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds, self._begun, self._said = what, seconds, monotonic(), False

    def again(self, trouble: str) -> bool:
        """Pause before the next try; False, at once, when the time is up. trouble: what the last try met with."""
        gone = monotonic() - self._begun
        if gone > self._seconds:
            return False
        if gone > SAID_AFTER and not self._said:
            self._said = True
            say_waiting(self._what, trouble, self._seconds)
        sleep(min(1.0, self._seconds / 10))
        return True
