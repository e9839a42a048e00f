"""Trees beside a heat map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

TREE = 0.18
"""Share of the axes for a tree."""
GAP = 0.04


def order_of(tree: Mapping[str, Any] | None, n: int) -> np.ndarray:
    """Order of rows or columns by a tree of ``tl``; without one, as they are."""
    return np.arange(n) if tree is None else np.asarray(tree["order"])


def bar_gap(ax: Axes, tree: Mapping[str, Any] | None) -> float:
    """Gap between the heat map and its colour bar; a constrained layout makes room for the tree by itself."""
    layout = ax.figure.canvas.figure.get_layout_engine()
    return GAP if tree is None or isinstance(layout, ConstrainedLayoutEngine) else TREE + 1.5 * GAP


def draw_beside(ax: Axes, tree: Mapping[str, Any]) -> None:
    """Draw the tree of the rows at the right."""
    side = ax.inset_axes((1.02, 0.0, TREE, 1.0))
    for position, height in _brackets(tree):
        side.plot(height, position, color="0.3", linewidth=1.0)
    side.set_ylim(len(tree["order"]), 0.0)
    side.axis("off")


def draw_above(ax: Axes, tree: Mapping[str, Any]) -> None:
    """Draw the tree of the columns above."""
    top = ax.inset_axes((0.0, 1.02, 1.0, TREE))
    for position, height in _brackets(tree):
        top.plot(position, height, color="0.3", linewidth=1.0)
    top.set_xlim(0.0, len(tree["order"]))
    top.axis("off")


def set_title(ax: Axes, title: str | None, share: float) -> None:
    """Set a title above what takes a share of the height of the axes: matplotlib makes room for a distance only."""
    if title is not None:
        ax.figure.canvas.figure.draw_without_rendering()
        ax.set_title(title, pad=6.0 + share * ax.get_window_extent().height * 72.0 / ax.figure.dpi)


def _brackets(tree: Mapping[str, Any]) -> list[tuple[list[float], list[float]]]:
    """Positions and heights of the bracket of every merger; leaves lie in the middle of their row or column."""
    order = np.asarray(tree["order"])
    middle = dict(zip(order.tolist(), (np.arange(len(order)) + 0.5).tolist(), strict=True))
    height = dict.fromkeys(order.tolist(), 0.0)
    brackets = []
    for index, (one, other, distance, _) in enumerate(np.asarray(tree["linkage"])):
        ends = int(one), int(other)
        places, below = [middle[end] for end in ends], [height[end] for end in ends]
        brackets.append(
            ([places[0], places[0], places[1], places[1]], [below[0], float(distance), float(distance), below[1]])
        )
        middle[len(order) + index], height[len(order) + index] = sum(places) / 2.0, float(distance)
    return brackets
