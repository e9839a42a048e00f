"""Closed-form densities at every noise level, as a starting point of the potential."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scratio.module._derivatives import Derivatives

PADDING = -1e30
"""Log weight of a component that is not there; a number, since infinite ones do not average."""


class ClosedFormDensities(nn.Module):
    r"""Log densities of mixtures of Gaussians, smoothed by the noise of the path.

    With :math:`p(x | c) = \sum_k w_{ck} N(x; m_{ck}, S_k)` and :math:`z = \tanh(q) x + \operatorname{sech}(q) x_0`,

    .. math:: p_q(z | c) = \sum_k w_{ck} N(z; \tanh(q) m_{ck}, \tanh^2(q) S_k + \operatorname{sech}^2(q) I),

    in the eigenbasis of S. Nothing here is trained; each member has values of its own.

    Parameters
    ----------
    n_members, n_conditions, n_covariances, n_components, n_features
        Sizes; ``n_covariances`` is 1 where the conditions share the covariances, else ``n_conditions``.
    """

    def __init__(
        self, n_members: int, n_conditions: int, n_covariances: int, n_components: int, n_features: int
    ) -> None:
        super().__init__()

        def fixed(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros((n_members, *shape)), requires_grad=False)

        self.log_weight = fixed(n_conditions, n_components)
        self.mean = fixed(n_conditions, n_components, n_features)
        self.basis = fixed(n_covariances, n_components, n_features, n_features)
        self.variance = nn.Parameter(
            torch.ones((n_members, n_covariances, n_components, n_features)), requires_grad=False
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of covariances and of components."""
        return self.basis.shape[1], self.basis.shape[2]

    @classmethod
    def stack(cls, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> ClosedFormDensities:
        """One member from each (log_weight, mean, covariance); sizes that differ are padded."""
        n_covariances = max(part[2].shape[0] for part in parts)
        n_components = max(part[2].shape[1] for part in parts)
        n_conditions, _, n_features = parts[0][1].shape
        stacked = cls(len(parts), n_conditions, n_covariances, n_components, n_features)
        stacked.log_weight.data.fill_(PADDING)
        for member, (log_weight, mean, covariance) in enumerate(parts):
            here = slice(covariance.shape[1])
            variance, basis = torch.linalg.eigh(covariance)
            stacked.log_weight.data[member, :, here] = log_weight.float()
            stacked.mean.data[member, :, here] = mean.float()
            stacked.basis.data[member, :, here] = basis.float()
            stacked.variance.data[member, :, here] = variance.clamp_min(0.0).float()
        return stacked

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Log densities up to a term that the conditions share, shape (n_members, n, n_conditions).

        In full precision also under autocast: differences of large numbers.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            return self._log_densities(z.to(self.mean.dtype), q.to(self.mean.dtype))

    def derivatives(self, z: Tensor, q: Tensor) -> Derivatives:
        """Log densities as :meth:`forward` gives them, with their gradients and Laplacians in z."""
        n_members, n, d = z.shape
        tanh, sech = torch.tanh(q)[..., None, None], 1.0 / torch.cosh(q)[..., None, None]
        precision = (1.0 / (tanh**2 * self.variance[:, None] + sech**2)).expand(-1, n, *self.mean.shape[1:])
        shift = z[:, :, None, None] - tanh * self.mean[:, None]
        basis = self._basis_of_conditions()
        pulled = torch.einsum("mnckd,mckde->mncke", shift, basis) * precision
        gradient = -torch.einsum("mncke,mckde->mnckd", pulled, basis)
        quadratic = -(gradient * shift).sum(-1) - precision.log().sum(-1)
        parts = Derivatives(self.log_weight[:, None] - 0.5 * quadratic, gradient, -precision.sum(-1))
        return parts.log_sum_exp()

    def _log_densities(self, z: Tensor, q: Tensor) -> Tensor:
        n_members, n = z.shape[:2]
        n_covariances, n_components = self.shape
        tanh, sech = torch.tanh(q)[..., None, None], 1.0 / torch.cosh(q)[..., None, None]
        directions = self.basis.permute(0, 3, 1, 2, 4).reshape(n_members, z.shape[2], -1)
        rotated = torch.bmm(z, directions).reshape(n_members, n, n_covariances, n_components, -1)
        precision = 1.0 / (tanh**2 * self.variance[:, None] + sech**2)
        # |z - t m|^2 = z^2 - 2 t z m + t^2 m^2 in the metric of the precision: no tensor of size conditions x d x n.
        means = (self.mean[..., None, :] @ self._basis_of_conditions()).squeeze(-2)
        weighted = rotated * precision
        own = (rotated * weighted).sum(-1) - precision.log().sum(-1)
        if n_covariances == 1:
            cross = torch.einsum("mnkd,mckd->mnck", weighted[:, :, 0], means)
            square = torch.einsum("mnkd,mckd->mnck", precision[:, :, 0], means**2)
        else:
            cross = torch.einsum("mnckd,mckd->mnck", weighted, means)
            square = torch.einsum("mnckd,mckd->mnck", precision, means**2)
        quadratic = own - 2.0 * tanh.squeeze(-1) * cross + tanh.squeeze(-1) ** 2 * square
        return (self.log_weight[:, None] - 0.5 * quadratic).logsumexp(-1)

    def _basis_of_conditions(self) -> Tensor:
        return self.basis.expand(-1, self.mean.shape[1], -1, -1, -1)
