"""Stored names of tensors, however they are wrapped, and the parameters that they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.convert.layouts.head_tensors import HEAD, find_head
from glm_jax.convert.layouts.state_dict import find_parameters, plain_name
from glm_jax.convert.names import TABLE, Entry, by_native, find
from glm_jax.errors import UsageError

WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
LAYERS = st.integers(0, 99_999)


@st.composite
def parameters(draw: st.DrawFn) -> str:
    """The original name of any parameter."""
    return draw(st.sampled_from(TABLE)).name(draw(LAYERS))


def wrapped(draw: st.DrawFn, name: str) -> str:
    """A name with components of wrappers anywhere, and of classes at its start."""
    parts = draw(st.lists(st.sampled_from(("model", "glm")), max_size=3)) + name.split(".")
    for _ in range(draw(st.integers(0, 4))):
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(WRAPPERS)))
    return ".".join(parts)


wrapped_by = st.composite(wrapped)


@given(st.data(), parameters())
def test_a_parameter_is_found_in_every_wrapping(data, name):
    assert plain_name(data.draw(wrapped_by(name))) == name


@given(st.sampled_from(TABLE), LAYERS)
def test_names_lead_to_their_entry_and_layer(entry: Entry, layer):
    assert find(entry.name(layer)) == (entry, layer if entry.in_layers else None)
    assert by_native(entry.native) is entry


@given(st.data(), parameters(), st.sampled_from(("x", "1", "Module", "bert", " ", "")))
def test_a_name_with_another_component_is_no_parameter(data, name, other):
    parts = name.split(".")
    parts.insert(data.draw(st.integers(0, len(parts))), other)
    assert plain_name(".".join(parts)) is None


@given(st.data(), st.lists(parameters(), min_size=1, max_size=8, unique=True))
def test_parameters_are_found_once_each(data, names):
    stored = [data.draw(wrapped_by(name)) for name in names]
    found = find_parameters([*stored, "lm_head.weight"], lambda _: "file")
    assert dict(found.names) == dict(zip(names, stored, strict=True))
    assert found.extra == ("lm_head.weight",)
    again = next(
        f"{prefix}.{names[0]}" for prefix in WRAPPERS if f"{prefix}.{names[0]}" != stored[0]
    )
    with pytest.raises(UsageError, match="only one of them can be converted"):
        find_parameters([*stored, again], lambda _: "file")


HEADS = (
    *("dense", "pool_layer", "classifier.dense", "pooler.dense"),
    *("out_proj", "multichoice_head", "classifier.out_proj", "classifier"),
)


@given(
    st.data(),
    st.sets(st.sampled_from([f"{layer}.{kind}" for layer in HEADS for kind in ("weight", "bias")])),
)
def test_heads_are_found_in_every_wrapping(data, names):
    stored = {data.draw(wrapped_by(name)): name for name in sorted(names)}
    found = find_head(stored)
    for layer, choices in (("pool_layer", HEADS[:4]), ("multichoice_head", HEADS[4:])):
        first = next((name for name in choices if f"{name}.weight" in names), None)
        kernel, bias = (found.get(f"{HEAD}/{layer}/{part}") for part in ("kernel", "bias"))
        assert (kernel and stored[kernel]) == (first and f"{first}.weight")
        has_bias = first is not None and f"{first}.bias" in names
        assert (bias and stored[bias]) == (f"{first}.bias" if has_bias else None)


@given(st.data(), st.lists(parameters(), max_size=8))
def test_no_parameter_of_the_network_is_a_head(data, names):
    assert not find_head([data.draw(wrapped_by(name)) for name in names])
