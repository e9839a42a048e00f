"""Names written on data, where none covers another and none leaves the axes at the sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import BboxBase

from scratio.pl._base import HALO


def write_names(ax: Axes, names: Mapping[str, Any], *, upwards: bool = False, **kwargs: Any) -> None:
    """Write names with a white halo, each at its position, shifted down or up where another one would be hit.

    Parameters
    ----------
    ax
        Axes with their final limits.
    names
        Positions by name, in units of the data.
    upwards
        Whether names are shifted up.
    **kwargs
        Properties of the texts.
    """
    # Layouts give axes their place when they are drawn.
    ax.figure.canvas.figure.draw_without_rendering()
    style = {"fontsize": "small", "ha": "center", "va": "center", "path_effects": HALO, "parse_math": False, **kwargs}
    inside, taken = ax.get_window_extent(), list[BboxBase]()
    for name, position in sorted(names.items(), key=lambda item: item[1][1] if upwards else -item[1][1]):
        x, y = position
        text = ax.text(x, y, name, **style)
        start = text.get_window_extent()
        box = start.translated(max(inside.x0 - start.x0, 0.0) + min(inside.x1 - start.x1, 0.0), 0.0)
        while hit := [other for other in taken if box.overlaps(other)]:
            up = max(other.y1 for other in hit) - box.y0 + 1.0
            down = min(other.y0 for other in hit) - box.y1 - 1.0
            box = box.translated(0.0, up if upwards else down)
        taken.append(box)
        shift = np.array([box.x0 - start.x0, box.y0 - start.y0])
        x, y = ax.transData.inverted().transform(ax.transData.transform((x, y)) + shift)
        text.set_position((x, y))
