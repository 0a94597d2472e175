r"""Conditions as the denoiser takes them: nested keyword arguments, compared, grouped and stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import GuidanceError
from ..names import USUAL, did_you_mean
from .evaluator import Rule

Leaves = dict[str, Any]


class Conditions:
    r"""Named conditions, each a mapping of keyword arguments nested in mappings, lists and tuples.

    Tensors with dimensions have the batch first; all else, even a 0-dimensional tensor, is shared by the
    samples.

    Args:
        conditions: The keyword arguments by name of condition.
        size: The batch size :math:`B` to which tensors with a batch of 1 are expanded; None leaves them
            alone.

    Raises:
        GuidanceError: If a tensor's batch is neither 1 nor :math:`B`.
    """

    def __init__(self, conditions: Mapping[str, Mapping[str, Any]], size: int | None = None) -> None:
        self._trees = dict(conditions)
        self._leaves = {name: flatten(tree) for name, tree in conditions.items()}
        # A fingerprint is of ids, so what it was taken of must live as long as it does.
        self._given = [leaf for leaves in self._leaves.values() for leaf in leaves.values()]
        self._stacks: dict[tuple[str, ...], Leaves] = {}
        if size is not None:
            for name, leaves in self._leaves.items():
                leaves.update({path: _expand(name + path, leaf, size) for path, leaf in leaves.items()})
        self.aliases = {name: self._first(name, _same) for name in self._leaves}
        r"""The first name with the same condition, by name."""
        self._kinds = {name: self._first(name, _stackable) for name in self._leaves}

    def _first(self, name: str, agree: Callable[[Any, Any], bool]) -> str:
        mine = self._leaves[name]
        for other, leaves in self._leaves.items():
            if mine.keys() == leaves.keys() and all(agree(mine[path], leaves[path]) for path in mine):
                return other
        return name

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        r"""The names whose conditions fit into one batch, together.

        Others (a different number of tokens, another flag) are left apart, which is exact whatever the
        denoiser is; padding or repeating their tokens is not.
        """
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(self._kinds[name], []).append(name)
        return list(groups.values())

    def rows(self, names: Sequence[str], rows: slice) -> dict[str, Any]:
        r"""Some `rows` of the stacked conditions :math:`(k B, ...)` of `names`, as keyword arguments."""
        first, stack = names[0], self._stack(tuple(names))
        tree: dict[str, Any] = rebuild(
            self._trees[first], {path: v[rows] if _batched(v) else v for path, v in stack.items()}
        )
        return tree

    def _stack(self, names: tuple[str, ...]) -> Leaves:
        first, *others = (self._leaves[name] for name in names)
        if others and names not in self._stacks:
            self._stacks[names] = {
                path: torch.cat([leaf, *(other[path] for other in others)]) if _batched(leaf) else leaf
                for path, leaf in first.items()
            }
        return self._stacks[names] if others else first


def sort_out(given: Mapping[str, Any], shared: Mapping[str, Any] | None, rule: Rule) -> dict[str, Mapping[str, Any]]:
    r"""The conditions that a rule needs, each with the keyword arguments that are for all.

    Args:
        given: Conditions, which are mappings, and keyword arguments for all conditions, which are not.
        shared: More keyword arguments for all conditions, mappings too.
        rule: What is served.

    Raises:
        GuidanceError: If a condition is missing or no mapping, or a mapping is no condition of the rule.
    """
    names, everywhere = rule.names, dict(shared or {})
    for name, value in given.items():
        if name in names or name in USUAL:
            continue
        if isinstance(value, Mapping):
            hint = did_you_mean(name, [*names, *USUAL]) or f", needed are {', '.join(names)}"
            why = "a mapping that is for all conditions goes in shared={...}"
            raise GuidanceError(f"{rule} has no condition {name!r}{hint} ({why})")
        everywhere[name] = value
    if missing := [name for name in names if name not in given]:
        raise GuidanceError(
            f"the condition {', '.join(missing)} is missing: {rule} needs {', '.join(names)}, "
            f"given is {', '.join(given) or 'none'}"
        )
    for name in names:
        if not isinstance(given[name], Mapping):
            raise GuidanceError(
                f"the condition {name!r} must be a mapping of the denoiser's keyword arguments, "
                f"as in {name}={{'cond': tensor}}, not a {type(given[name]).__name__}"
            )
    return {name: {**everywhere, **given[name]} if everywhere else given[name] for name in names}


def fingerprint(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    r"""What changes when a condition does, be it in place; valid while its leaves are kept alive."""
    return tuple(
        (name, path, id(leaf), _version(leaf))
        for name, tree in conditions.items()
        for path, leaf in flatten(tree).items()
    )


def _version(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return None
    # Inference tensors do not say when they change: an object equal to nothing else has them stacked anew.
    return object() if leaf.is_inference() else leaf._version


def flatten(tree: Any, path: str = "") -> Leaves:
    r"""The leaves of a condition by their path, which spells the structure."""
    leaves: Leaves = {}
    if isinstance(tree, Mapping) and tree:
        for key, child in tree.items():
            leaves.update(flatten(child, f"{path}[{key!r}]"))
    elif isinstance(tree, (list, tuple)) and tree:
        for index, child in enumerate(tree):
            leaves.update(flatten(child, f"{path}[{index}]" if isinstance(tree, list) else f"{path}({index})"))
    else:
        leaves[path] = tree
    return leaves


def rebuild(tree: Any, leaves: Leaves, path: str = "") -> Any:
    r"""A new tree of the structure of `tree` with other leaves."""
    if isinstance(tree, Mapping) and tree:
        return {key: rebuild(child, leaves, f"{path}[{key!r}]") for key, child in tree.items()}
    if isinstance(tree, list) and tree:
        return [rebuild(child, leaves, f"{path}[{index}]") for index, child in enumerate(tree)]
    if isinstance(tree, tuple) and tree:
        items = [rebuild(child, leaves, f"{path}({index})") for index, child in enumerate(tree)]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return leaves[path]


def _batched(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def _expand(path: str, leaf: Any, size: int) -> Any:
    if not _batched(leaf) or len(leaf) == size:
        return leaf
    if len(leaf) != 1:
        raise GuidanceError(
            f"{path} has the shape {tuple(leaf.shape)}: "
            f"the first dimension of a condition's tensor is the batch, 1 or {size} here"
        )
    return leaf.expand(size, *leaf.shape[1:])


def _stackable(a: Any, b: Any) -> bool:
    if _batched(a) and _batched(b):
        return bool(a.shape == b.shape and a.dtype == b.dtype and a.device == b.device)
    return _same(a, b)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        if a.dtype != b.dtype or a.device != b.device or a.ndim != b.ndim:
            return False
        if _batched(a) and 1 in (len(a), len(b)):  # a batch of 1 stands for any
            size = max(len(a), len(b))
            a, b = a.expand(size, *a.shape[1:]), b.expand(size, *b.shape[1:])
        return _equal(a, b)
    try:
        return bool(a == b)
    except Exception:  # some types refuse to be compared; they are the same only when identical
        return False


def _equal(a: Tensor, b: Tensor) -> bool:
    r"""Whether two tensors hold the same; False while compiling, in vmap and for fake tensors, where nobody knows."""
    if torch.compiler.is_compiling():
        return False
    try:
        return torch.equal(a, b)
    except RuntimeError:
        return False
