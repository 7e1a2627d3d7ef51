"""The files that travel with an exported Hugging Face folder: GLM in PyTorch for `transformers`.

Nothing here imports the rest of the package, for a folder is used without it. `network_glm` needs
torch alone and is also the network of `glm_jax.parity`; the other files need `transformers`.
"""
