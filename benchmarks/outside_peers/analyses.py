"""Analyses of cohorts in scratio's environment, from files: scratio, and methods that need no other environment.

    python benchmarks/outside_peers/analyses.py COHORT.npz [COHORT.npz ...] --out FOLDER --methods scratio meld

A cohort has cells ``x`` (n, d), the ``sample`` of every cell, and the ``group`` of every sample (1 is treated). It may
have the ``batch`` of every sample, which scratio's test then holds fixed. Every method gives the cells a ``log_ratio``,
and has an entry ``found`` if it calls cells at a false discovery rate of .1 and the samples are enough for that.

Classifiers and nearest neighbours have the settings of `scratio.peers`, but are called without it: its import would add
seconds and memory that scikit-learn does not need. Classifiers score out of fold. They are not calibrated, which would
take five times as long. Nearest neighbours and MELD score the cells that they are fitted on.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from _exchange import Arrays, serve

# isort: split
import numpy as np

FOLDER = Path(__file__).resolve().parents[1]
N_FOLDS, N_NEIGHBORS, FDR, SEED, SMALLEST = 5, 50, 0.1, 0, 1e-12


def is_treated(cohort: Arrays) -> np.ndarray:
    """Whether every cell is of a treated sample."""
    return cohort["group"][cohort["sample"]] == 1


def prior(cohort: Arrays) -> float:
    """Log odds of the treated by the numbers of cells."""
    treated = is_treated(cohort)
    return float(np.log(treated.sum()) - np.log((~treated).sum()))


def labelled(cohort: Arrays):
    """Cells as an analyst has them."""
    import anndata
    import pandas as pd

    treated = is_treated(cohort)
    sample = pd.Categorical([f"s{code:02d}" for code in range(len(cohort["group"]))])[cohort["sample"]]
    obs = pd.DataFrame({"sample": sample, "is_treated": treated.astype(float)})
    obs["condition"] = pd.Categorical(np.where(treated, "treated", "control"))
    if "batch" in cohort:
        obs["batch"] = pd.Categorical([f"b{code}" for code in cohort["batch"]])[cohort["sample"]]
    return anndata.AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": cohort["x"]})


def by_scratio(cohort: Arrays, effort: str) -> Arrays:
    """The whole analysis: log ratios out of fold with standard errors, and the test across samples."""
    import scratio

    adata = labelled(cohort)
    scratio.tl.differential_abundance(
        adata,
        condition_key="condition",
        treatment="treated",
        reference="control",
        sample_key="sample",
        covariates=held_fixed(cohort),
        effort=effort,
        random_state=SEED,
        train_kwargs={"progress_bar": False},
    )
    return {
        "log_ratio": adata.obs["da_log_ratio"].to_numpy(),
        "effect": adata.obs["da_effect"].to_numpy(),
        **called(adata.obs["da_qvalue"].to_numpy()),
    }


def called(qvalue: np.ndarray) -> Arrays:
    """Which cells are called. scratio gives no q-values at all where samples are too few."""
    return {} if np.isnan(qvalue).all() else {"found": qvalue <= FDR}


def held_fixed(cohort: Arrays) -> str | None:
    """Formula of what scratio's test holds fixed."""
    return "~ batch" if "batch" in cohort else None


def by_association(cohort: Arrays) -> Arrays:
    """The test across samples alone, without a network."""
    import scratio

    adata = labelled(cohort)
    settings = {"key": "is_treated", "sample_key": "sample", "covariates": held_fixed(cohort)}
    scratio.tl.association(adata, **settings, random_state=SEED)
    effect, qvalue = (adata.obs[f"association_{name}"].to_numpy() for name in ("effect", "qvalue"))
    return {"log_ratio": effect, **called(qvalue)}


def by_clusters(cohort: Arrays) -> Arrays:
    """20 clusters judged by scratio's model of counts."""
    import pandas as pd

    sys.path.append(str(FOLDER))  # at the end, where it hides no package
    from _cohorts import Cohort
    from significance import by_clusters as judged

    donor = pd.Categorical([f"s{code:02d}" for code in range(len(cohort["group"]))])[cohort["sample"]]
    obs = pd.DataFrame({"donor": donor, "group": np.where(is_treated(cohort), "treated", "control")})
    held = []
    if "batch" in cohort:
        obs["batch"], held = labelled(cohort).obs["batch"].to_numpy(), ["batch"]
    outcome = judged(Cohort(cohort["x"], obs, np.zeros(len(obs), dtype=bool)), SEED, held)
    return {"log_ratio": outcome["log_ratio"], "found": outcome["found"]}


def by_classifier(cohort: Arrays, kind: str) -> Arrays:
    """Log odds out of fold minus those of the class sizes."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = {
        "logistic": LogisticRegression(max_iter=1_000),
        "boosting": HistGradientBoostingClassifier(early_stopping=True, random_state=SEED),
        "mlp": MLPClassifier((128, 128), alpha=1e-3, early_stopping=True, random_state=SEED),
    }[kind]
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=SEED)
    fitted = make_pipeline(StandardScaler(), model)
    p = cross_val_predict(fitted, cohort["x"], is_treated(cohort), cv=folds, method="predict_proba")
    odds = np.log(np.maximum(p, SMALLEST))
    return {"log_ratio": odds[:, 1] - odds[:, 0] - prior(cohort)}


def by_neighbors(cohort: Arrays) -> Arrays:
    """Log odds among the 50 nearest other cells minus those of the class sizes."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    near = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(StandardScaler().fit_transform(cohort["x"]))
    # Without an argument a cell is not its own neighbour.
    n_treated = is_treated(cohort)[near.kneighbors(return_distance=False)].sum(1)
    return {"log_ratio": np.log(n_treated + 0.5) - np.log(N_NEIGHBORS - n_treated + 0.5) - prior(cohort)}


def by_meld(cohort: Arrays) -> Arrays:
    """Log ratio of the densities of both conditions, smoothed on MELD's graph."""
    import meld

    with redirect_stdout(StringIO()):
        densities = meld.MELD(verbose=0).fit_transform(cohort["x"], is_treated(cohort).astype(str))
    control, treated = (np.log(np.maximum(densities[name], np.finfo(float).tiny)) for name in ("False", "True"))
    return {"log_ratio": (treated - control).to_numpy()}


METHODS = {
    "logistic": lambda cohort: by_classifier(cohort, "logistic"),
    "boosting": lambda cohort: by_classifier(cohort, "boosting"),
    "mlp": lambda cohort: by_classifier(cohort, "mlp"),
    "knn": by_neighbors,
    "meld": by_meld,
    "clusters": by_clusters,
    "scratio-samples": by_association,
    "scratio-quick": lambda cohort: by_scratio(cohort, "quick"),
    "scratio": lambda cohort: by_scratio(cohort, "default"),
}

if __name__ == "__main__":
    serve(METHODS)
