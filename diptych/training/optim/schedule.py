"""The learning rate of each step."""

import math

from diptych.training.settings import ScheduleSettings


def learning_rate(step: int, total: int, peak: float, settings: ScheduleSettings) -> float:
    """Return the rate: linear growth over `warmup_steps`, then half a cosine (Loshchilov and Hutter 2016) to the end.

    step: optimizer steps done before this one.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return peak * (settings.final_fraction + (1 - settings.final_fraction) * cosine)
