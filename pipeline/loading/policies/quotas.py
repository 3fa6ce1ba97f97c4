"""Quotas: assigns turns to parties, e.g. rows of batches to data sets, in proportion to weights.

After n turns a party with share s (of 1) is due n * s turns. The turns repeat in a cycle, in which k parties have
m_1, ..., m_k turns. Their order follows Tijdeman's rule (1980, "The chairman assignment problem"): of the parties that
have had at least 1 / (2k - 2) turns fewer than due, the one with the earliest deadline is next; the deadline is the
last turn at which it stays within the bound. The bound: counted from the start, a party's turns never differ from those
due by more than 1 - 1 / (2k - 2), which is 1/2 for two parties and less than 1 for any number. Between any two turns
they differ by at most twice that.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

# Longest cycle: shares are accurate to one turn in 10,000, and exact for ratios of small integers.
_MAX_LENGTH = 10_000


class Quotas:
    """A cycle of turns in proportion to weights.

    Args:
        weights: weights of the parties, above 0.
    """

    def __init__(self, weights: list[float]) -> None:
        self.turns = _turns(weights)
        self.length = int(self.turns.sum())
        self._order = _tijdeman(self.turns)
        # [k, length + 1] turns of each party before each position in the cycle.
        self._before = np.zeros((len(weights), self.length + 1), np.int32)
        for party in range(len(weights)):
            np.cumsum(self._order == party, out=self._before[party, 1:])

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each party, [k]; they add up to 1."""
        return self.turns / self.length

    def before(self, turn: int) -> NDArray[np.int64]:
        """The number of each party's turns among the first `turn`, [k]."""
        cycles, position = divmod(turn, self.length)
        counts: NDArray[np.int64] = cycles * self.turns + self._before[:, position]
        return counts


def _turns(weights: list[float]) -> NDArray[np.int64]:
    """Turns of each party in a cycle, at least one."""
    exact = [Fraction(weight).limit_denominator(1000) for weight in weights]
    if all(exact) and all(abs(float(a) - b) < 1e-9 * b for a, b in zip(exact, weights, strict=True)):
        scale = lcm(*(fraction.denominator for fraction in exact))
        turns = np.array([int(fraction * scale) for fraction in exact], np.int64)
        turns //= np.gcd.reduce(turns)
        if turns.sum() <= _MAX_LENGTH:
            return turns
    # Largest remainders; a party without a turn takes one from the party with the most.
    wanted = np.array(weights) / sum(weights) * _MAX_LENGTH
    turns = np.maximum(np.floor(wanted).astype(np.int64), 1)
    turns[np.argsort(turns - wanted, kind="stable")[: max(0, _MAX_LENGTH - int(turns.sum()))]] += 1
    turns[np.argmax(turns)] -= int(turns.sum()) - _MAX_LENGTH
    return turns


def _tijdeman(turns: NDArray[np.int64]) -> NDArray[np.int16]:
    """The order of a cycle, in integer arithmetic: shares are turns / length."""
    parties, length = len(turns), int(turns.sum())
    order = np.zeros(length, np.int16)
    if parties == 1:
        return order
    slack = 2 * parties - 2
    counts = np.zeros(parties, np.int64)
    for position in range(length):
        # A party is ready if (position + 1) turns / length, its turns due, exceed `counts` by at least 1 / slack.
        owed = slack * ((position + 1) * turns - counts * length)
        # The last position at which its next turn keeps the bound: due - counts <= 1 - 1 / slack.
        deadline = ((slack * counts + slack - 1) * length) // (slack * turns)
        ready = owed >= length
        chosen = int(np.argmin(np.where(ready, deadline, np.iinfo(np.int64).max)))
        order[position] = chosen
        counts[chosen] += 1
    return order
