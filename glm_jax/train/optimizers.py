"""The table of optimizers: how each turns gradients into update directions.

An entry is a function of Adam's settings, which the configuration has as fields of their own, and
of keyword settings with defaults, which `optimizer.settings` overrides. It returns an optax
transformation without learning rate, weight decay or clipping, which all optimizers share
(`glm_jax.train.optimizer`). Moments are sharded like their parameters.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import optax
from flax.core.meta import AxisMetadata
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.train.low_memory_adam import MOMENTS


class AdamSettings(NamedTuple):
    """Decay rates of both moments, what is added to the root of the second, how they are kept."""

    beta1: float
    beta2: float
    epsilon: float
    moments: str = "float32"


def adamw(adam: AdamSettings) -> optax.GradientTransformation:
    """Adam. Source: Kingma and Ba (2015); its decay is Loshchilov and Hutter's (2019)."""
    return MOMENTS[adam.moments](adam.beta1, adam.beta2, adam.epsilon)


def adafactor(
    adam: AdamSettings,
    *,
    decay_rate: float = 0.8,
    clipping_threshold: float = 1.0,
    momentum: float = 0.0,
    multiply_by_parameter_scale: bool = True,
) -> optax.GradientTransformation:
    """A factored second moment, without a first unless `momentum` is above 0.

    The learning rate is relative to the root mean square of each parameter, so about 1e-2, unless
    `multiply_by_parameter_scale` is False. Source: Shazeer and Stern (2018).
    """
    del adam
    _check_fractions(decay_rate=decay_rate, momentum=momentum)
    descent = optax.adafactor(
        learning_rate=None,
        decay_rate=decay_rate,
        clipping_threshold=clipping_threshold or None,
        momentum=momentum or None,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
    )
    return optax.chain(descent, optax.scale(-1.0))


def lion(
    adam: AdamSettings, *, beta1: float = 0.9, beta2: float = 0.99
) -> optax.GradientTransformation:
    """The sign of a momentum, which wants a rate of about a third to a tenth of Adam's.

    Source: Chen et al. (2023), Symbolic Discovery of Optimization Algorithms.
    """
    del adam
    _check_fractions(beta1=beta1, beta2=beta2)
    return optax.scale_by_lion(beta1, beta2)


def muon(
    adam: AdamSettings,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    newton_schulz_steps: int = 5,
    update_rms: float = 0.2,
) -> optax.GradientTransformation:
    """Orthogonalised momentum for the matrices of the layers, Adam for tables and vectors.

    Every layer's matrix is orthogonalised by itself, and query, key and value apart. Updates have
    the root mean square `update_rms`, about that of Adam's, so that both take the same rate.
    Source: Jordan (2024), Muon; Liu et al. (2025), Muon is Scalable for LLM Training.
    """
    _check_fractions(momentum=momentum)
    if newton_schulz_steps < 1:
        raise UsageError(
            f"optimizer.settings['newton_schulz_steps'] is {newton_schulz_steps}; "
            "expected an integer of at least 1"
        )
    descent = optax.contrib.muon(
        learning_rate=1.0,
        ns_steps=newton_schulz_steps,
        beta=momentum,
        nesterov=nesterov,
        consistent_rms=update_rms,
        muon_weight_dimension_numbers=matrix_dimensions,
    )
    return optax.partition(
        {"muon": optax.chain(descent, optax.scale(-1.0)), "adam": adamw(adam)},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, leaf: "muon" if _is_matrix(path, leaf) else "adam", params
        ),
    )


def sgd(
    adam: AdamSettings, *, momentum: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with Nesterov's momentum if `nesterov`."""
    del adam
    _check_fractions(momentum=momentum)
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": adamw,
    "adafactor": adafactor,
    "lion": lion,
    "muon": muon,
    "sgd": sgd,
}


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Makes sure that an optimizer takes these settings.

    Raises:
      UsageError: an unknown setting, one of another type, or one out of range.
    """
    factory = OPTIMIZERS[name]
    known = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    types = typing.get_type_hints(factory)
    for setting, value in settings.items():
        if setting not in known:
            raise UsageError(
                f"optimizer.settings has {setting!r}, but {name} "
                + (f"has only {', '.join(known)}" if known else "has no settings of its own")
            )
        expected = types[setting]
        number = expected is float and type(value) is int
        if not (number or type(value) is expected) or not 0 <= value < math.inf:
            kind = "True or False" if expected is bool else f"a non-negative {expected.__name__}"
            raise UsageError(f"optimizer.settings[{setting!r}] is {value!r}; expected {kind}")
    factory(AdamSettings(0.9, 0.999, 1e-8), **settings)


def matrix_dimensions(params: PyTree) -> PyTree:
    """Which axes of the parameters Muon takes for a matrix: those of kernels; None for the rest.

    The first axis of a kernel with more than two is the layer's. What lies between its rows and its
    columns, such as query, key and value in [N, D, 3, D], are different matrices too.
    """

    def dimensions(path: tuple[Any, ...], leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not _is_matrix(path, leaf):
            return None
        return optax.contrib.MuonDimensionNumbers(
            reduction_axis=0 if leaf.ndim == 2 else 1, output_axis=leaf.ndim - 1
        )

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _is_matrix(path: tuple[Any, ...], leaf: Any) -> bool:
    return _names(path)[-1:] == ("kernel",) and leaf.ndim >= 2


def sharded_like_parameters(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Gives moments the logical axis names of their parameters, where `init` gets named ones.

    An array of the state belongs to the parameter whose path its own path ends with, and has its
    names if it has its shape; others, such as the means of rows and columns, have no names and are
    replicated.
    """

    def init(params: PyTree) -> optax.OptState:
        state = optimizer.init(nn.unbox(params))
        boxes = {
            _names(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_box)
            if _is_box(leaf)
        }

        def named(path: tuple[Any, ...], array: jax.Array) -> Any:
            names = _names(path)
            for start in range(len(names)):
                box = boxes.get(names[start:])
                if box is not None and nn.unbox(box).shape == array.shape:
                    return box.replace_boxed(array)
            return array

        return jax.tree_util.tree_map_with_path(named, state)

    return optax.GradientTransformation(init, optimizer.update)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, AxisMetadata)


def _check_fractions(**settings: float) -> None:
    """Raises a UsageError that names the first setting outside [0, 1)."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise UsageError(
                f"optimizer.settings[{name!r}] is {value}; expected a number in [0, 1)"
            )
