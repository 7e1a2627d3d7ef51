"""What gin says of configurations that it can't read, in one sentence."""

from __future__ import annotations

import dataclasses
import re
import tokenize
from collections.abc import Mapping

from glm_jax.typed_values import unknown_name


def explain(error: Exception, sections: Mapping[str, type]) -> str:
    """gin's many-line messages as one sentence.

    Args:
      error: that gin raised.
      sections: that a configuration may have, by name.
    """
    text = str(error)
    if match := re.search(r"No configurable matching '(.+?)'", text):
        return unknown_name("section", match[1], list(sections)) + _place(text)
    if match := re.search(r"Configurable '(.+?)' doesn't have a parameter named '(.+?)'", text):
        section = match[1].rpartition(".")[2]
        names = [field.name for field in dataclasses.fields(sections[section])]
        return unknown_name("name", match[2], names, f" in section {section}") + _place(text)
    if match := re.search(r"No bindings specified for '(.+?)/gin\.macro'", text):
        return f"the macro %{match[1]} is used, but not defined" + _place(text)
    if isinstance(error, tokenize.TokenError):
        return f"the configuration can't be read: {error.args[0]}"
    first_line = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return f"the configuration can't be read: {first_line}" + _place(text)


def _place(text: str) -> str:
    match = re.search(r'In file "(.+?)", line (\d+)', text)
    return f" ({match[1]}, line {match[2]})" if match else ""
