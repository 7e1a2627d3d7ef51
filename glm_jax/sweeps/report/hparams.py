"""The trials of a sweep for TensorBoard's HParams view."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter

from glm_jax.io.files import remove_folder
from glm_jax.sweeps.report.results import Results


def write_hparams(results: Results, folder: Path) -> None:
    """Writes what each trial differs in, and its metrics, again.

    Args:
      results: of the sweep.
      folder: a local one, with a folder for each trial; `tensorboard --logdir` is given it.
    """
    remove_folder(folder)
    for trial in results.trials:
        if not trial.final:
            continue
        plain = {
            name: value if isinstance(value, bool | int | float | str) else repr(value)
            for name, value in trial.differing.items()
        }
        with SummaryWriter(str(folder / trial.name), write_to_disk=True) as writer:
            metrics = {name: v for name, v in trial.final.items() if name.startswith("valid")}
            writer.add_hparams(plain, metrics, name=".", global_step=trial.steps)
