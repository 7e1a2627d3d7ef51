"""Formulas of a sweep file, such as "round(1e15 / flops_per_step)", evaluated without `eval`.

A formula is a Python expression of numbers, texts, names and a few functions. Nothing else of
Python is understood, so that a sweep file from elsewhere can compute, but do nothing more.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.typed_values import unknown_name

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "exp": math.exp,
    "float": float,
    "floor": math.floor,
    "int": int,
    "log": math.log,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}
MAX_EXPONENT = 1000
MAX_BITS = 100_000  # of a power of integers
MAX_LENGTH = 10_000  # of a text or a tuple
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}
_FAILURES = (ArithmeticError, TypeError, ValueError, RecursionError, MemoryError)


def evaluate_formula(where: str, formula: str, value_of: Callable[[str], Any]) -> Any:
    """The value of a formula.

    Args:
      where: what the formula is, for messages: "sweep.constraints".
      formula: its text.
      value_of: the value of a name, "section.name" or a single word.

    Raises:
      UsageError: it is no expression, has something that formulas don't have, or can't be computed.
    """
    try:
        tree = ast.parse(formula.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{where} has {formula!r}, which is not an expression") from error
    try:
        return _value(tree.body, value_of)
    except UsageError as error:
        raise UsageError(f"{where} has {formula!r}: {error}") from error
    except _FAILURES as error:
        raise UsageError(f"{where} has {formula!r}, which fails: {error}") from error


def _value(node: ast.expr, value_of: Callable[[str], Any]) -> Any:
    """The value of one node of an expression.

    Raises:
      UsageError: a kind of node, a function or a name that formulas don't have.
    """

    def of(part: ast.expr) -> Any:
        return _value(part, value_of)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            return value_of(name)
        case ast.Attribute(value=ast.Name(id=section), attr=name):
            return value_of(f"{section}.{name}")
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(of(left), of(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(op, of(left), of(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](of(operand))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(of(value) for value in values)
        case ast.BoolOp(values=values):
            return any(of(value) for value in values)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _comparison(of(left), ops, [of(other) for other in others])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return of(body) if of(test) else of(orelse)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(of(item) for item in items)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                raise UsageError(unknown_name("function", name, list(FUNCTIONS)))
            return FUNCTIONS[name](*(of(argument) for argument in arguments))
    raise UsageError(f"{ast.unparse(node)!r} is not part of a formula")


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float) and abs(exponent) > MAX_EXPONENT:
        raise UsageError(f"the exponent {exponent} is larger than {MAX_EXPONENT}")
    integers = isinstance(base, int) and isinstance(exponent, int)
    if integers and base.bit_length() * exponent > MAX_BITS:
        raise UsageError("a power is too large")
    return base**exponent


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    lengths = [len(side) for side in (left, right) if isinstance(side, str | tuple)]
    if lengths and isinstance(op, ast.Mult | ast.Mod):
        raise UsageError("a text or tuple can't be multiplied or formatted")
    if sum(lengths) > MAX_LENGTH:
        raise UsageError(f"a text or tuple is longer than {MAX_LENGTH}")
    return _BINARY[type(op)](left, right)


def _comparison(left: Any, ops: list[ast.cmpop], others: list[Any]) -> bool:
    """A chain of comparisons, such as 1 < x <= 2."""
    for op, right in zip(ops, others, strict=True):
        if type(op) not in _COMPARE:
            raise UsageError("'is' is not part of a formula")
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
