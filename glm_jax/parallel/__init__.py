"""Device meshes and how arrays are laid over them."""
