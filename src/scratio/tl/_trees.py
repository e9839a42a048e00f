"""Trees of similar rows, in the form in which results hold them."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list


def tree_of(linkage: np.ndarray) -> dict[str, np.ndarray]:
    """Linkage, and the order of its leaves."""
    return {"linkage": linkage, "order": leaves_list(linkage)}
