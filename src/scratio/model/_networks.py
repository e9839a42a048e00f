"""Untrained networks by the settings of a model."""

from __future__ import annotations

from typing import Any

from scratio._random import torch_generator
from scratio.conditions import Combinations, ConditionSchema
from scratio.module import FlowNetwork, PaperHeads, PotentialNetwork, ResidualHeads
from scratio.paths import GaussianPath

_INITIAL_WEIGHTS, _DENOISER = 10, 17
DENOISER_WIDTH = 128


def new_network(
    settings: dict[str, Any],
    schema: ConditionSchema,
    observed: Combinations,
    n_features: int,
    *,
    random_state: int,
    n_networks: int,
) -> FlowNetwork:
    """Network of as many stacked members as asked for, untrained.

    Parameters
    ----------
    settings
        Arguments of :class:`scratio.model.ScRatio`, by name.
    schema, observed
        Conditions, and which combinations of them the cells have.
    n_features
        Dimension of the embedding.
    random_state
        Seed of the weights.
    n_networks
        Number of members of all folds together.
    """
    common: dict[str, Any] = {
        "n_features": n_features,
        "path": path_of(settings),
        "n_members": n_networks,
        "generator": torch_generator(random_state, _INITIAL_WEIGHTS),
        **{name: settings[name] for name in ("n_hidden", "n_layers") if settings[name] is not None},
    }
    if settings["parametrization"] == "potential":
        return PotentialNetwork(
            combinations=observed.codes, values=observed.values, weights=observed.weights, **common
        ).eval()
    keys = {
        "n_categories": schema.n_categories,
        "n_continuous": len(schema.continuous),
        "dropout": settings["condition_dropout"],
    }
    if settings["block"] == "mlp":
        return PaperHeads(**keys, **common).eval()
    return ResidualHeads(separate_heads=settings["separate_heads"], **keys, **common).eval()


def new_denoiser(settings: dict[str, Any], n_features: int, random_state: int) -> ResidualHeads:
    """Denoiser of all cells, whatever their conditions, untrained."""
    return ResidualHeads(
        n_features=n_features,
        n_categories=[],
        n_continuous=0,
        path=path_of(settings),
        generator=torch_generator(random_state, _DENOISER),
        n_hidden=DENOISER_WIDTH,
    )


def path_of(settings: dict[str, Any]) -> GaussianPath:
    """Gaussian path of a model."""
    return GaussianPath(settings["sigma_min"], settings["sigma"])
