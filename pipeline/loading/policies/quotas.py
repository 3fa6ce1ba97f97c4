"""Quotas: whose turn it is, so that after any number of turns everyone had their share to within one.

The turns repeat in a cycle, in which k parties have m_1, ..., m_k turns. Inside it they are dealt by Tijdeman's rule
(1980, "The chairman assignment problem"): of those whose share has run ahead of their turns by 1 / (2k - 2) or more,
the one that must come soonest. Then no party's turns, counted from the start, are ever more than 1 - 1 / (2k - 2) from
its share: 1/2 for two, less than 1 for any number. Between any two moments they are within twice that.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

# Shares are met to within a turn of so many; those in a ratio of small whole numbers exactly.
_LONGEST = 10_000


class Quotas:
    """A cycle of turns in proportion to weights.

    Args:
        weights: of the parties, each above 0.
    """

    def __init__(self, weights: list[float]) -> None:
        self.turns = _turns(weights)
        self.length = int(self.turns.sum())
        self._order = _tijdeman(self.turns)
        # [k, length + 1] turns that each party had before a place of the cycle.
        self._before = np.zeros((len(weights), self.length + 1), np.int32)
        for party in range(len(weights)):
            np.cumsum(self._order == party, out=self._before[party, 1:])

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each party, [k]; they add up to 1."""
        return self.turns / self.length

    def before(self, turn: int) -> NDArray[np.int64]:
        """How many of the first `turn` turns each party has, [k]."""
        cycles, place = divmod(turn, self.length)
        counts: NDArray[np.int64] = cycles * self.turns + self._before[:, place]
        return counts


def _turns(weights: list[float]) -> NDArray[np.int64]:
    """Turns of each party in a cycle, at least one."""
    exact = [Fraction(weight).limit_denominator(1000) for weight in weights]
    if all(exact) and all(abs(float(a) - b) < 1e-9 * b for a, b in zip(exact, weights, strict=True)):
        scale = lcm(*(part.denominator for part in exact))
        turns = np.array([int(part * scale) for part in exact], np.int64)
        turns //= np.gcd.reduce(turns)
        if turns.sum() <= _LONGEST:
            return turns
    # Largest remainders; who would have no turn gets one, from who has most.
    wanted = np.array(weights) / sum(weights) * _LONGEST
    turns = np.maximum(np.floor(wanted).astype(np.int64), 1)
    turns[np.argsort(turns - wanted, kind="stable")[: max(0, _LONGEST - int(turns.sum()))]] += 1
    turns[np.argmax(turns)] -= int(turns.sum()) - _LONGEST
    return turns


def _tijdeman(turns: NDArray[np.int64]) -> NDArray[np.int16]:
    """The order of a cycle, in whole numbers throughout: shares are turns / length."""
    parties, length = len(turns), int(turns.sum())
    order = np.zeros(length, np.int16)
    if parties == 1:
        return order
    slack = 2 * parties - 2
    had = np.zeros(parties, np.int64)
    for place in range(length):
        # Ready: place + 1 turns give a share of (place + 1) turns / length; at least 1 / slack more than it had.
        ahead = slack * ((place + 1) * turns - had * length)
        # The last place by which its next turn keeps the bound: share - had <= 1 - 1 / slack.
        deadline = ((slack * had + slack - 1) * length) // (slack * turns)
        ready = ahead >= length
        chosen = int(np.argmin(np.where(ready, deadline, np.iinfo(np.int64).max)))
        order[place] = chosen
        had[chosen] += 1
    return order
