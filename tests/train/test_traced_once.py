"""Initial parameters are traced once for their shapes and their values."""

import jax

from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.program import make_program


def test_a_network_is_traced_once_for_its_initial_parameters(monkeypatch):
    traced = []
    init = GLM.init
    monkeypatch.setattr(GLM, "init", lambda self, *args: traced.append(self) or init(self, *args))
    config = GLMConfig(
        vocab_size=89, num_layers=1, hidden_size=8, num_attention_heads=2, max_sequence_length=16
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    make_program(config, OptimizerConfig(learning_rate=1e-3), mesh, seed=3).initialize()
    assert len(traced) == 1
