"""How far a call is: a bar in a terminal, a line now and then in a log file, one output in a notebook."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scratio
from scratio import _progress
from scratio._progress import LINE_EVERY, Progress, with_progress
from scratio.train._callbacks import StepProgressBar


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def work(clock: Clock, seconds: float, n: int = 2_000, progress: Progress | None = None) -> None:
    """A phase of n steps that take so many seconds together, each with other losses."""
    with (progress or Progress()).bar(n, "training", "step") as bar:
        for k in range(n):
            clock.now += seconds / n
            bar.update(1)
            bar.set_postfix({"loss": f"{k}"}, refresh=False)


def test_a_log_file_gets_a_line_each_ten_seconds_at_most(clock, capsys):
    work(clock, seconds=95.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    assert all(re.fullmatch(r"training: +\d+% of 2000 steps \[.*loss=\d+\]", line) for line in lines)
    shares = [int(re.search(r"(\d+)%", line)[1]) for line in lines]
    assert shares == sorted(set(shares))


def test_two_phases_leave_no_more_lines_than_one(clock, capsys):
    progress = Progress()
    for _ in range(5):
        work(clock, seconds=LINE_EVERY - 0.5, progress=progress)
    assert capsys.readouterr().err == ""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Outputs of a notebook's cell, each with what it has shown one after the other."""
    outputs: list[list[str]] = []

    class Handle:
        def __init__(self, shown: list[str]) -> None:
            self.shown = shown

        def update(self, data: dict[str, str], raw: bool) -> None:
            assert raw
            self.shown.append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        outputs.append([data["text/plain"]])
        return Handle(outputs[-1])

    fake: Any = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=object()), display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return outputs


def test_a_notebook_gets_one_output_that_is_updated(clock, notebook, capsys, recwarn):
    progress = Progress()
    for _ in range(3):
        work(clock, seconds=30.0, progress=progress)
    assert len(notebook) == 1
    assert 150 <= len(notebook[0]) <= 200, "every half second"
    assert "100%" in notebook[0][-1] and "2000/2000" in notebook[0][-1]
    assert capsys.readouterr().err == ""
    assert not recwarn.list


def test_a_training_has_one_output(gaussian_cells, notebook, capsys):
    scratio.model.ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = scratio.model.ScRatio(gaussian_cells, n_hidden=8, n_members=1)
    model.train(max_steps=20, accelerator="cpu")
    (shown,) = notebook
    assert shown[-1].startswith("training: 100%")
    assert "20/20" in shown[-1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_error", [False, True])
def test_a_training_that_ends_early_is_shown_as_whole_unless_it_failed(is_error, clock, notebook):
    trainer = SimpleNamespace(is_global_zero=True, global_step=0)
    bar = StepProgressBar(Progress(), 600, SimpleNamespace(history={}), "training")
    bar.on_train_start(trainer, None)
    for _ in range(150):
        bar.on_train_batch_end(trainer, None)
    if not is_error:
        bar.on_train_end(trainer, None)
    clock.now += 1.0
    bar.teardown(trainer, None, "fit")
    assert ("25%" if is_error else "100%") in notebook[0][-1]


def test_what_is_not_shown_leaves_nothing(clock, notebook, capsys):
    work(clock, seconds=100.0, progress=Progress(shown=False))
    assert list(with_progress([(0, "a"), (5, "b")], 10, "scoring", shown=False)) == [(0, "a"), (5, "b")]
    assert notebook == []
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_is_terminal", lambda: True)
    assert list(with_progress([(0, "a"), (5, "b")], 10, "scoring", shown=True)) == [(0, "a"), (5, "b")]
    shown = capsys.readouterr().err
    assert "scoring: 100%" in shown
    assert shown.count("\n") == 1


def test_an_interpreter_in_a_terminal_is_no_notebook(monkeypatch):
    assert not _progress._is_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not _progress._is_notebook()


IN_A_KERNEL = """
import sys, types, warnings
# What tqdm.auto looks at in a notebook without ipywidgets.
sys.modules["ipywidgets"] = None
sys.modules["ipykernel"] = sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel")
ipython = types.ModuleType("IPython")
ipython.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}}, kernel=object())
sys.modules["IPython"] = ipython
IMPORTS
import tqdm.auto
print("imported")
"""


def test_no_remark_about_widgets_in_a_notebook():
    found = [
        subprocess.run([sys.executable, "-c", IN_A_KERNEL.replace("IMPORTS", imports)], capture_output=True, text=True)
        for imports in ("import scratio", "")
    ]
    assert (found[0].stdout, found[0].stderr) == ("imported\n", "")
    assert "IProgress not found" in found[1].stderr, "the test shows nothing: tqdm no longer warns"


# --- one bar for a whole call ----------------------------------------------------------------------------------------


def shares(shown: list[str]) -> list[int]:
    return [int(found[1]) for text in shown if (found := re.search(r"(\d+)%", text))]


def analysis(clock: Clock, seconds: float, rounds: int = 1, steps: int = 600, ends_at: float = 1.0, shown: bool = True):
    """A call of some rounds of training, which may end early, and scoring."""

    @_progress.one_bar("comparing")
    def call() -> str:
        _progress.expect_work((1_000, 20), [1_000], rounds=rounds, shown=shown)
        for _ in range(rounds):
            bar = _progress.progress_of_call(True).bar(steps, "training", "step")
            for _ in range(int(steps * ends_at)):
                clock.now += seconds / steps
                bar.update(1)
            bar.close()
            with _progress.phase("calibrating"):
                clock.now += 1.0
            for _ in with_progress([(k, "block") for k in range(0, 1_000, 100)], 1_000, "scoring"):
                clock.now += 1.0
        return "done"

    return call()


@pytest.mark.parametrize(("rounds", "ends_at"), [(1, 1.0), (1, 0.4), (2, 0.7)])
def test_a_call_has_one_bar_that_never_goes_back_and_says_what_is_done(rounds, ends_at, clock, notebook, capsys):
    assert analysis(clock, 30.0, rounds, ends_at=ends_at) == "done"
    (shown,) = notebook
    found = shares(shown)
    assert found == sorted(found) and found[-1] == 100
    words = [text.splitlines()[-1].split(":")[0] for text in shown if ":" in text]
    # Each phase is named as it begins, also if it takes long until its first update.
    assert {f"comparing, {_progress.PHASES[name]}" for name in ("training", "calibrating", "scoring")} <= set(words)
    assert words[-1] == "comparing"
    # 600 steps of training are most of the call, and its end is not shown before the cells are scored.
    trained = max(s for text, s in zip([t for t in shown if "%" in t], found, strict=True) if "training" in text)
    assert trained < 95
    assert capsys.readouterr().err == ""


def test_a_call_can_be_silent(clock, notebook, capsys):
    analysis(clock, 30.0, shown=False)
    assert notebook == [] and capsys.readouterr().err == ""


def test_a_call_that_fails_closes_its_bar_and_frees_the_next_one(clock, notebook):
    @_progress.one_bar("failing")
    def call() -> None:
        _progress.expect_work((10, 2), [10])
        _progress.progress_of_call(True).bar(10, "training", "step").update(5)
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        call()
    assert _progress._current.get() is None
    assert "100%" not in notebook[0][-1]


def test_a_long_call_says_beforehand_what_it_takes(clock, notebook):
    analysis(clock, seconds=600.0)
    shown = notebook[0]
    # One step takes a second. 600 of them, 80 for the weights, and 100 + 1,000 / 140 for scoring are 13 minutes.
    first = next(k for k, text in enumerate(shown) if "about" in text)
    assert shares([shown[first]])[0] < 10
    for text in shown[first:]:
        assert text.startswith("Comparing, 1,000 cells: at most about 13 min, 0.9 GiB of memory\ncomparing")


def test_a_short_call_does_not_say_what_it_takes(clock, notebook):
    analysis(clock, seconds=30.0)
    assert not any("about" in text for text in notebook[0])


def test_an_analysis_has_one_output(gaussian_cells, notebook, capsys):
    settings = {"max_steps": 20, "accelerator": "cpu", "n_validation": 64}
    question = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
    scratio.tl.differential_abundance(gaussian_cells, **question, train_kwargs=settings)
    (shown,) = notebook
    assert shown[-1].startswith("comparing conditions: 100%")
    assert capsys.readouterr().err == ""
    notebook.clear()
    scratio.tl.differential_abundance(gaussian_cells, **question, effort="quick")
    assert len(notebook) == 1


def test_a_long_call_says_it_once_in_a_log_file(clock, capsys):
    analysis(clock, seconds=600.0)
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if not re.match(r"comparing, .*: +\d+% \[", line)]
    assert said == ["Comparing, 1,000 cells: at most about 13 min, 0.9 GiB of memory"]
    assert lines.index(said[0]) < 5 and len(lines) >= 50


def test_several_questions_share_the_time_of_scoring(clock, notebook):
    @_progress.one_bar("comparing")
    def call() -> None:
        _progress.expect_work((1_000, 20), [1_000] * 4)
        for _ in range(4):
            for name, seconds in (("scoring", 10.0), ("typicality", 1.0)):
                for _ in with_progress([(k, "block") for k in range(0, 1_000, 100)], 1_000, name):
                    clock.now += seconds / 10

    call()
    (shown,) = notebook
    found = shares(shown)
    assert found == sorted(found)
    judged = sorted({shares([text])[0] for text in shown if "judging support" in text})
    # Weights of closed forms are a seventh of the call, and the four questions have equal parts of the rest.
    assert np.allclose(judged, [36, 57, 79, 100], atol=3), judged


@pytest.mark.parametrize("title", ["measuring the batch effect", "comparing conditions", "comparing combinations"])
def test_the_words_of_a_phase_leave_room_in_a_terminal(title):
    for words in _progress.PHASES.values():
        assert len(f"{title}, {words}: 100%|") + len("| [59:59<59:59]") <= 78


def test_a_slow_phase_after_a_fast_one_moves_the_bar(clock, notebook):
    @_progress.one_bar("comparing")
    def call() -> None:
        _progress.expect_work((1_000, 20), [100_000])
        bar = _progress.progress_of_call(True).bar(600, "training", "step")
        for _ in range(600):
            clock.now += 0.001
            bar.update(1)
        bar.close()
        for _ in with_progress([(k, "block") for k in range(1_000)], 1_000, "scoring"):
            clock.now += 1.0

    call()
    scored = [text for text in notebook[0] if "scoring" in text]
    assert len(scored) >= 1_000


def test_the_denoiser_is_a_part_of_the_call(gaussian_cells, notebook, capsys, monkeypatch):
    monkeypatch.setattr("scratio.model._denoiser.FEWEST_STEPS", 20)
    monkeypatch.setattr("scratio.model._denoiser.MOST_STEPS", 20)
    settings = {"max_steps": 20, "accelerator": "cpu", "n_validation": 64}
    question = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
    scratio.tl.differential_abundance(gaussian_cells, **question, method="naive", train_kwargs=settings)
    (shown,) = notebook
    found = shares(shown)
    assert found == sorted(found) and found[-1] == 100
    assert any("training a denoiser" in text for text in shown)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("use_rep", [["X_pca", "X_b"], np.array(["X_pca", "X_b"])], ids=["list", "array"])
def test_two_embeddings_share_a_bar(use_rep, gaussian_cells, notebook):
    gaussian_cells.obsm["X_b"] = gaussian_cells.obsm["X_pca"].copy()
    settings = {"max_steps": 20, "accelerator": "cpu", "n_validation": 64}
    scratio.tl.batch_effect(gaussian_cells, batch_key="condition", use_rep=use_rep, n_folds=2, train_kwargs=settings)
    (shown,) = notebook
    found = shares(shown)
    assert found == sorted(found) and found[-1] == 100
    judged = [shares([text])[0] for text in shown if "judging support" in text]
    assert judged[0] == 50 and judged[-1] == 100


# Cells and dimensions, and peak memory of a process (GiB) that compared two conditions of them.
PEAKS = [(2_000, 20, 0.72), (20_000, 20, 0.96), (20_000, 20, 1.11), (20_000, 50, 1.25), (100_000, 20, 1.52)]
PEAKS += [(100_000, 20, 1.20), (100_000, 50, 1.71), (100_000, 50, 1.59)]


@pytest.mark.parametrize(("n_cells", "n_features", "measured"), PEAKS)
def test_the_memory_that_is_announced_is_what_was_measured_within_a_third(n_cells, n_features, measured):
    expected = (_progress.BASE + _progress.PER_VALUE * n_cells * n_features) / 2**30
    assert 0.75 < expected / measured < 1.34
