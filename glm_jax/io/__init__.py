"""Files and folders by path or URL."""

from glm_jax.io.atomic import new_folder
from glm_jax.io.files import local_copy, read_file, write_file
from glm_jax.io.paths import is_url, resolve_path

__all__ = ["is_url", "local_copy", "new_folder", "read_file", "resolve_path", "write_file"]
