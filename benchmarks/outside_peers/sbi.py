"""Log ratios by neural ratio estimation of the package sbi: NRE-A, NRE-B and NRE-C.

    .venv-peer-sbi/bin/python benchmarks/outside_peers/sbi.py CELLS.npz --out OUT --methods NRE-A

The label is the parameter, 0 or 1, and a cell is the simulation. The package estimates log p(x | label) less a function
of x; the difference between the labels 1 and 0 is the log ratio. Network (residual), standardisation, batches, loss and
stopping are the package's defaults: training ends when the loss of a tenth of the cells has not fallen for 20 epochs.
Nothing is clipped. Sources: Hermans et al., ICML 2020 (A); Durkan et al., ICML 2020 (B); Miller et al., NeurIPS 2022
(C); github.com/sbi-dev/sbi.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _exchange import Arrays, serve

# isort: split
import numpy as np  # the threads are limited by now
from _two_samples import scored


class NoTracker:
    """Keeps nothing of a training; the package's own tracker writes files."""

    log_dir = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Do nothing."""
        return lambda *args, **kwargs: None


def estimate(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int, *, method: str) -> np.ndarray:
    """Log ratios by a loss of the package."""
    import torch
    from sbi import inference
    from sbi.utils import BoxUniform

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    label = torch.from_numpy(is_treated.astype(np.float32))[:, None]
    prior = BoxUniform(torch.zeros(1), torch.ones(1))
    trainer = getattr(inference, method)(prior=prior, show_progress_bars=False, tracker=NoTracker())
    network = trainer.append_simulations(label, torch.from_numpy(x.astype(np.float32))).train()
    wanted = torch.from_numpy(fresh.astype(np.float32))
    with torch.no_grad():
        of_label = [network.unnormalized_log_ratio(torch.full((len(fresh), 1), value), wanted) for value in (1.0, 0.0)]
    return (of_label[0] - of_label[1]).flatten().numpy()


METHODS: dict[str, Callable[[Arrays], dict[str, np.ndarray]]] = {
    name: partial(scored, partial(estimate, method=name.replace("-", "_"))) for name in ("NRE-A", "NRE-B", "NRE-C")
}

if __name__ == "__main__":
    serve(METHODS)
