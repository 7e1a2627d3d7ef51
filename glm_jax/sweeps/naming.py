"""Names of trials: what differs, short, and fit for a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_NAME_LENGTH = 120
MAX_VALUE_LENGTH = 40


def short_names(settings: Iterable[str]) -> dict[str, str]:
    """The last part of every setting, or all of it where two share the last part."""
    settings = list(settings)
    last = [setting.rpartition(".")[2] for setting in settings]
    return {
        setting: name if last.count(name) == 1 else setting
        for setting, name in zip(settings, last, strict=True)
    }


def trial_name(values: Mapping[str, Any], prefix: str = "") -> str:
    """A folder's name, such as "learning_rate=0.001,num_layers=2,seed=1".

    Args:
      values: what differs, by setting; also "variant" and "seed".
      prefix: distinguishes trials whose shown values may be equal.
    """
    names = short_names(values)
    parts = [f"{names[setting]}={_shown(value)}" for setting, value in values.items()]
    name = ",".join([prefix, *parts] if prefix else parts) or "base"
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - 9]}-{digest}"


def shown_value(value: Any) -> str:
    """A value for people: floats with up to six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    """A value as a part of a folder's name."""
    text = shown_value(value)
    if isinstance(value, Mapping | tuple | list) or len(text) > MAX_VALUE_LENGTH:
        digest = hashlib.sha256(repr(value).encode()).hexdigest()[:8]
        text = f"{text[:MAX_VALUE_LENGTH]}-{digest}"
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") or "_"
