"""lm-evaluation-harness's own command, with GLM among its models."""

# The harness is not installed where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

from lm_eval.__main__ import cli_evaluate

import glm_jax.harness.model  # noqa: F401  registers the model

if __name__ == "__main__":
    cli_evaluate()
