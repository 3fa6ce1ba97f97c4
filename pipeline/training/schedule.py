"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def schedule_factor(step: int, total: int, *, warmup_steps: int, kind: str, final_share: float) -> float:
    """The fraction of the peak learning rate at `step` (0-based): linear warm-up, then cosine or constant.

    The first step has 1 / warmup_steps of the peak and the last step has `final_share`,
    so no step has a rate of zero.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, total - 1 - warmup_steps)
    return final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
