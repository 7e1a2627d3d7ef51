"""The best configuration of a sweep, as a gin file of an ordinary run."""

from __future__ import annotations

from glm_jax.io.paths import resolve_path
from glm_jax.sweeps.jobs import BASE_FILE
from glm_jax.sweeps.naming import shown_value
from glm_jax.sweeps.report.results import Results
from glm_jax.sweeps.report.statistics import groups_of


def best_gin(results: Results) -> str | None:
    """The configuration with the best mean over its seeds; None before a trial is done.

    It has the first of its seeds, and a run folder of its own.
    """
    best = next((group for group in groups_of(results) if group.mean is not None), None)
    if best is None or best.mean is None:
        return None
    interval = "" if best.interval is None else f" ± {best.interval:.2g} (95%)"
    trial = min(best.trials, key=lambda trial: (trial.seed is not None, trial.seed or 0))
    point = ", ".join(f"{name} = {shown_value(value)}" for name, value in best.point.items())
    lines = [
        f"# The best of {len(groups_of(results))} configurations of the sweep {results.name}:",
        f"# {point or 'its only one'}.",
        f"# {results.metric} {best.mean:.6g}{interval}, {best.num_values} seed(s).",
    ]
    settings: dict[str, str] = {}
    for line in (resolve_path(results.folder) / BASE_FILE).read_text().splitlines():
        name, _, value = line.partition(" = ")
        settings[name] = value
    settings |= {name: repr(value) for name, value in trial.settings.items()}
    settings[results.folder_setting] = repr(f"runs/{results.name}_best")
    lines += [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"
