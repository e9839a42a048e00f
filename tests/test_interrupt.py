"""Ctrl-C: a KeyboardInterrupt for the caller, nothing written, and the next call works."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import anndata as ad
import numpy as np
import pytest

import scratio
from scratio._caller import interruptible
from scratio.fdrl._training import StaleRatioPlan
from scratio.model import FDRL, ScRatio
from scratio.train._plan import FlowTrainingPlan

STEP = 7
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every training is interrupted at its seventh step, as by the terminal's signal."""
    for plan in (FlowTrainingPlan, StaleRatioPlan):

        def training_step(self, batch, batch_idx, original=plan.training_step):
            if self.global_step == STEP:
                signal.raise_signal(signal.SIGINT)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(plan, "training_step", training_step)
    # Processes that a shell starts in the background ignore the signal; Python's own handler is what users have.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield monkeypatch
    signal.signal(signal.SIGINT, handler)


def compare(adata: ad.AnnData, quick: dict) -> None:
    scratio.tl.differential_abundance(adata, **GROUPS, model_kwargs={"n_hidden": 8}, train_kwargs=quick)


def test_an_interrupted_analysis_changes_nothing_and_the_next_call_works(gaussian_cells, quick, unchanged, ctrl_c):
    expected = gaussian_cells.copy()
    handler = signal.getsignal(signal.SIGINT)
    with unchanged(gaussian_cells), pytest.raises(KeyboardInterrupt):
        compare(gaussian_cells, quick)
    assert signal.getsignal(signal.SIGINT) is handler, "no later Ctrl-C would have an effect"
    ctrl_c.undo()
    compare(gaussian_cells, quick)
    compare(expected, quick)
    np.testing.assert_array_equal(gaussian_cells.obs["da_log_ratio"], expected.obs["da_log_ratio"])


@pytest.mark.parametrize("kind", [ScRatio, FDRL])
def test_an_interrupted_model_can_be_trained_again(kind, gaussian_cells, ctrl_c):
    kind.setup_anndata(gaussian_cells, condition_keys=["condition"])
    settings = {"max_steps": 20, "batch_size": 64, "accelerator": "cpu", "progress_bar": False}
    model, other = (kind(gaussian_cells, n_hidden=8) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        model.train(**settings)
    assert not model.is_trained_
    ctrl_c.undo()
    model.train(**settings)
    other.train(**settings)
    assert model.fingerprint() == other.fingerprint()


def exits(context: BaseException | None) -> Callable[[], None]:
    def block() -> None:
        error = SystemExit(3)
        error.__context__ = context
        raise error

    return block


def test_only_an_exit_that_ctrl_c_caused_becomes_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), interruptible():
        exits(KeyboardInterrupt())()
    for other in (None, ValueError("unrelated")):
        with pytest.raises(SystemExit, match="3"), interruptible():
            exits(other)()
