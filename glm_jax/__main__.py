"""`python -m glm_jax` is `glm-jax`."""

import sys

from glm_jax.cli.main import main

sys.exit(main())
