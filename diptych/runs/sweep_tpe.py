"""Propose the settings of a sweep's next trial from those that are done, by Optuna's TPE.

TPE, the tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"), draws
settings that are likely among the good trials and unlikely among the others. Nothing is stored beside `sweep.json`:
every proposal starts from the trials in it, and from a seed of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.errors import MissingExtraError
from diptych.runs.sweep_folder import Trial
from diptych.runs.sweep_plan import Sweep

RANDOM_TRIALS = 10  # done before anything is proposed from them: Optuna's default


def propose(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the settings of the trial that comes after `trials`, of which those that failed say nothing.

    The same sweep, seed and trials give the same settings.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    try:
        import optuna  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("optuna", "sweep", "--sampler tpe") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it says what `sweep` says itself
    space: dict[str, Any] = {
        # By their indices: Optuna takes no lists or tables as choices.
        **{
            grid.key: optuna.distributions.CategoricalDistribution(range(len(grid.values)))
            for grid in sweep.grids
        },
        **{
            range_.key: (
                optuna.distributions.IntDistribution(int(range_.low), int(range_.high), log=range_.low > 0)
                if range_.whole
                else optuna.distributions.FloatDistribution(range_.low, range_.high, log=range_.low > 0)
            )
            for range_ in sweep.ranges
        },
    }
    seed = int(np.random.SeedSequence((sweep.seed, len(trials))).generate_state(1)[0])
    study = optuna.create_study(
        direction="minimize" if sweep.goal == "minimise" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS),
    )
    for trial in trials:
        if trial.status == "done" and sweep.metric in trial.metrics:
            params = _with_indices(sweep, trial.settings)
            value = trial.metrics[sweep.metric]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    found = study.ask(space).params
    settings: dict[str, Any] = {grid.key: grid.values[found[grid.key]] for grid in sweep.grids}
    for range_ in sweep.ranges:
        value = found[range_.key]
        # Four digits, as random draws have, but never outside the range.
        settings[range_.key] = (
            value if range_.whole else min(max(float(f"{value:.4g}"), range_.low), range_.high)
        )
    return settings


def _with_indices(sweep: Sweep, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with an index for each value of a grid."""
    return {**settings, **{grid.key: grid.values.index(settings[grid.key]) for grid in sweep.grids}}
