"""How the peers that content is fetched from behave: who is quick, who rests, who lied. Pure.

Time comes in as an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

import collections

HEDGE_S_MIN = 0.05
HEDGE_S_MAX = 1.0  # also for a peer that nothing is known of
REST_S = 10.0  # after a first failure; each further one in a row doubles it
REST_S_MAX = 300.0
WRONG_REST_S = 600.0  # after bytes that were not what was asked for
RETRY_AFTER_S_MAX = 300.0
PEERS_MAX = 4096
_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4


class Health:
    """What is known of one peer."""

    __slots__ = ("deviation_s", "failures", "is_shut", "mean_s", "rests_until", "wrong")

    def __init__(self) -> None:
        self.mean_s = 0.0
        self.deviation_s = 0.0
        self.failures = 0
        self.wrong = 0
        self.rests_until = 0.0
        self.is_shut = False  # while resting it is not asked at all, rather than last

    def answered(self, took_s: float) -> None:
        """Note an honest answer, whether it had the block or not."""
        self.failures = 0
        self.slow(took_s)

    def slow(self, took_s: float) -> None:
        """Note how long was waited, also in vain: mean and deviation as in RFC 6298."""
        if not self.mean_s:
            self.mean_s, self.deviation_s = took_s, took_s / 2
            return
        error = took_s - self.mean_s
        self.mean_s += _GAIN * error
        self.deviation_s += _DEVIATION_GAIN * (abs(error) - self.deviation_s)

    def failed(self, now: float) -> None:
        """Note that it could not be reached, broke off or answered with an error of its own."""
        self._rest(now + min(REST_S * 2**self.failures, REST_S_MAX), is_shut=False)
        self.failures = min(self.failures + 1, 16)

    def lied(self, now: float) -> None:
        """Note that it sent wrong bytes, or more than a block has."""
        self.wrong += 1
        self._rest(now + WRONG_REST_S, is_shut=True)

    def asked_for_rest(self, now: float, wait_s: float) -> None:
        """Note that it asked to be left alone (429 or 503 with Retry-After)."""
        self._rest(now + min(wait_s, RETRY_AFTER_S_MAX), is_shut=True)

    def hedge_s(self) -> float:
        """Return how long it is waited for alone, before another one is asked too."""
        if not self.mean_s:
            return HEDGE_S_MAX
        return min(max(self.mean_s + 4 * self.deviation_s, HEDGE_S_MIN), HEDGE_S_MAX)

    def _rest(self, until: float, *, is_shut: bool) -> None:
        self.is_shut = is_shut or (self.is_shut and self.rests_until > until)
        self.rests_until = max(self.rests_until, until)


class HealthBook:
    """Peers by their URL; those that were not seen for longest are forgotten first."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[str, Health] = collections.OrderedDict()

    def of(self, peer: str) -> Health:
        """Return what is known of a peer, to be read or added to."""
        found = self._known.get(peer)
        if found is None:
            found = self._known[peer] = Health()
            if len(self._known) > PEERS_MAX:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(peer)
        return found

    def rests(self, peer: str, now: float) -> bool:
        """Tell whether a peer is better asked last."""
        found = self._known.get(peer)
        return found is not None and found.rests_until > now

    def is_shut(self, peer: str, now: float) -> bool:
        """Tell whether a peer is not to be asked at all for now."""
        found = self._known.get(peer)
        return found is not None and found.is_shut and found.rests_until > now


def retry_after_s(value: bytes) -> float:
    """Read a Retry-After field in seconds; a date, or nothing, counts as REST_S."""
    return float(value) if value.isdigit() and len(value) < 10 else REST_S
