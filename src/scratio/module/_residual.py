"""Residual network with modulation by time and condition, and its exact trace."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from scratio.module._derivatives import Derivatives
from scratio.module._layers import StackedLinear

TANGENT_NUMBERS = 2**20
"""Largest number of entries of a block's tangents that are held at once: as many as stay in a cache."""
CLOSED_FORM_BLOCKS = 2
"""Largest depth for which the trace of the Jacobian costs one extra matrix product per cell."""


class ResidualBlock(nn.Module):
    """``h + V (a(e) * silu(b(e) * (U h) + c(e)))``: one hidden layer, modulated by the embedding (FiLM)."""

    def __init__(self, n_members: int, n_hidden: int, n_embed: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = StackedLinear(n_members, n_hidden, n_hidden, generator=generator)
        self.outer = StackedLinear(n_members, n_hidden, n_hidden, generator=generator)
        self.film = StackedLinear(n_members, n_embed, 3 * n_hidden, generator=generator, init="zeros")

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """New hidden state."""
        # Cells that share a row of the embedding are a dimension of their own here: rows are broadcast, not repeated.
        n_rows = embedding.shape[1]
        scale, shift, gain = (part.unsqueeze(2) for part in self.film(embedding).chunk(3, dim=-1))
        pre = torch.addcmul(shift, self.inner(hidden).unflatten(1, (n_rows, -1)), 1.0 + scale)
        # Not nn.functional.silu: its derivative has no forward mode, which the divergence of a gradient needs.
        return hidden + self.outer(((1.0 + gain) * pre * torch.sigmoid(pre)).flatten(1, 2))

    def forward_and_slope(self, hidden: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """New hidden state and the derivative of the modulated nonlinearity with respect to ``U h``."""
        scale, shift, gain = self._modulation(embedding, hidden.shape[1])
        pre = scale * self.inner(hidden) + shift
        gate = torch.sigmoid(pre)
        return hidden + self.outer(gain * pre * gate), gate * (1.0 + pre * (1.0 - gate)) * (scale * gain)

    def forward_slope_and_curvature(self, hidden: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """New hidden state, and first and second derivative of the modulated nonlinearity with respect to ``U h``."""
        scale, shift, gain = self._modulation(embedding, hidden.shape[1])
        pre = scale * self.inner(hidden) + shift
        gate = torch.sigmoid(pre)
        curvature = gate * (1.0 - gate) * (2.0 + pre * (1.0 - 2.0 * gate)) * (scale**2 * gain)
        return (
            hidden + self.outer(gain * pre * gate),
            gate * (1.0 + pre * (1.0 - gate)) * (scale * gain),
            curvature,
        )

    def _modulation(self, embedding: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        scale, shift, gain = _of_cells(self.film(embedding), n).chunk(3, dim=-1)
        return 1.0 + scale, shift, 1.0 + gain


class ResidualNet(nn.Module):
    r"""Map (z, e) to a vector: residual blocks beside a gated linear map.

    .. math::
        h_0 = W_{in} z + W_e e, \qquad h_l = h_{l-1} + V_l \phi((1 + g_l(e)) \odot U_l h_{l-1} + s_l(e)), \qquad
        F = W_{out} h_L + P (g(e) \odot Q z)

    The linear map lets a Gaussian condition be fitted exactly at every noise level; the blocks have what is left. With
    at most two blocks the trace of dF/dz is a bilinear form in the slopes of the two nonlinearities, so that it costs
    one matrix product per cell beside the forward pass (docs/theory.md, "The divergence").

    Successive cells may share a row of e; what depends on e alone is computed once for them.

    Parameters
    ----------
    n_members, n_in, n_out, n_hidden, n_layers, n_embed
        Members, sizes, and number of residual blocks.
    generator
        Source of the initial weights; the output starts at zero.
    """

    def __init__(
        self,
        n_members: int,
        *,
        n_in: int,
        n_out: int,
        n_hidden: int,
        n_layers: int,
        n_embed: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()

        def linear(n_from: int, n_to: int, **kwargs) -> StackedLinear:
            return StackedLinear(n_members, n_from, n_to, generator=generator, **kwargs)

        self.n_in = n_in
        self.input = linear(n_in, n_hidden)
        self.shift = linear(n_embed, n_hidden, bias=False)
        self.blocks = nn.ModuleList(ResidualBlock(n_members, n_hidden, n_embed, generator) for _ in range(n_layers))
        self.output = linear(n_hidden, n_out, init="zeros")
        self.rotate = linear(n_in, n_in, bias=False)
        self.gate = linear(n_embed, n_in)
        self.mix = linear(n_in, n_out, init="zeros", bias=False)

    @property
    def _chain(self) -> list[ResidualBlock]:
        return [cast(ResidualBlock, block) for block in self.blocks]

    @property
    def has_closed_form_trace(self) -> bool:
        """Whether :meth:`forward_and_trace` is available."""
        return len(self.blocks) <= CLOSED_FORM_BLOCKS and self.input.weight.shape[1] == self.output.weight.shape[2]

    def forward(self, z: Tensor, embedding: Tensor) -> Tensor:
        """Output of shape (n_members, n, n_out)."""
        hidden = self.input(z) + _of_cells(self.shift(embedding), z.shape[1])
        for block in self._chain:
            hidden = block(hidden, embedding)
        return self.output(hidden) + self.mix(_of_cells(self.gate(embedding), z.shape[1]) * self.rotate(z))

    def forward_and_trace(self, z: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Output and the trace of its Jacobian in z, shape (n_members, n), for at most two blocks."""
        hidden = self.input(z) + _of_cells(self.shift(embedding), z.shape[1])
        slopes = []
        for block in self._chain:
            hidden, slope = block.forward_and_slope(hidden, embedding)
            slopes.append(slope)
        gate = _of_cells(self.gate(embedding), z.shape[1])
        output = self.output(hidden) + self.mix(gate * self.rotate(z))
        trace = self._linear_trace(gate) + self._block_traces(slopes)
        return output, trace.expand(output.shape[:-1])

    def derivatives(self, z: Tensor, embedding: Tensor) -> Derivatives:
        r"""Outputs with their gradients and Laplacians in z, exactly, for any depth.

        In the row-vector convention, with :math:`D_l` and :math:`C_l` the slopes and curvatures of the nonlinearity of
        block l, its tangent in direction i and its Laplacian are

        .. math::
            T_{li} = B_{li} D_l, \qquad B_{li} = e_i W_{in} U_l + \sum_{m<l} T_{mi} V_m U_l, \qquad
            \Delta_l = C_l \sum_i B_{li}^2 + D_l \sum_{m<l} \Delta_m V_m U_l ,

        so that L blocks cost L (L - 1) / 2 products of width ``n_hidden`` per direction, and the rest next to nothing.
        """
        n_members, n, d = z.shape
        hidden = self.input(z) + _of_cells(self.shift(embedding), z.shape[1])
        slopes, curvatures = [], []
        for block in self._chain:
            hidden, slope, curvature = block.forward_slope_and_curvature(hidden, embedding)
            slopes.append(slope)
            curvatures.append(curvature)
        gate = _of_cells(self.gate(embedding), z.shape[1])
        value = self.output(hidden) + self.mix(gate * self.rotate(z))
        straight = self.input.weight @ self.output.weight
        gradients, squares = [], [torch.zeros_like(slope) for slope in slopes]
        step = max(TANGENT_NUMBERS // (n_members * n * hidden.shape[2]), 1)
        for start in range(0, d, step):
            some = slice(start, start + step)
            tangents = self._tangents(slopes, squares, some)
            through = (self.rotate.weight[:, None, some] * gate[:, :, None]) @ self.mix.weight[:, None]
            gradient = straight[:, None, some] + through
            for block, tangent in zip(self._chain, tangents, strict=True):
                gradient = gradient + _product(tangent, block.outer.weight @ self.output.weight)
            gradients.append(gradient)
        laplacian = self._laplacian(slopes, curvatures, squares, value)
        # Where all modulations are one the gradient of the linear part is the same for all cells.
        gradient = torch.cat([g.expand(n_members, n, -1, -1) for g in gradients], dim=2)
        return Derivatives(value, gradient.transpose(2, 3), laplacian)

    def _tangents(self, slopes: list[Tensor], squares: list[Tensor], some: slice) -> list[Tensor]:
        """Tangents of the nonlinearities in some directions, (n_members, n, n_directions, n_hidden).

        The squares of the tangents before the nonlinearity are added to ``squares``.
        """
        tangents: list[Tensor] = []
        for index, (block, slope) in enumerate(zip(self._chain, slopes, strict=True)):
            before = (self.input.weight[:, some] @ block.inner.weight)[:, None]
            for earlier, tangent in zip(self._chain, tangents, strict=False):
                before = before + _product(tangent, earlier.outer.weight @ block.inner.weight)
            squares[index] += (before**2).sum(2)
            tangents.append(before * slope[:, :, None])
        return tangents

    def _laplacian(self, slopes: list[Tensor], curvatures: list[Tensor], squares: list[Tensor], like: Tensor) -> Tensor:
        """Laplacians of the outputs from those of the nonlinearities."""
        own: list[Tensor] = []
        total = torch.zeros_like(like)
        for block, slope, curvature, square in zip(self._chain, slopes, curvatures, squares, strict=True):
            before = torch.zeros_like(slope)
            for earlier, laplacian in zip(self._chain, own, strict=False):
                before = before + torch.bmm(laplacian, earlier.outer.weight @ block.inner.weight)
            own.append(curvature * square + slope * before)
            total = total + torch.bmm(own[-1], block.outer.weight @ self.output.weight)
        return total

    def _linear_trace(self, gate: Tensor) -> Tensor:
        through = (self.mix.weight.transpose(1, 2) * self.rotate.weight).sum(1)  # diagonal of Q P, (n_members, n_in)
        straight = (self.input.weight * self.output.weight.transpose(1, 2)).sum((1, 2))
        return straight[:, None] + (gate @ through[:, :, None]).squeeze(-1)

    def _block_traces(self, slopes: list[Tensor]) -> Tensor:
        # Row-vector convention: h_l = h_{l-1} + silu(h_{l-1} U_l) V_l, so the Jacobian from z to F is
        # W_in (I + U_1 D_1 V_1)(I + U_2 D_2 V_2) W_out and each term of its trace is linear or bilinear in D_1, D_2.
        loop = self.output.weight @ self.input.weight  # (n_members, n_hidden, n_hidden)
        total = slopes[0].new_zeros(()) if slopes else loop.new_zeros((len(loop), 1))
        for block, slope in zip(self._chain, slopes, strict=True):
            around = ((block.outer.weight @ loop) * block.inner.weight.transpose(1, 2)).sum(-1)
            total = total + (slope @ around[:, :, None]).squeeze(-1)
        if len(slopes) == CLOSED_FORM_BLOCKS:
            first, second = self._chain
            forward = first.outer.weight @ second.inner.weight  # from nonlinearity 1 to 2
            back = second.outer.weight @ loop @ first.inner.weight  # and round through the output and the input
            total = total + ((slopes[0] @ (forward * back.transpose(1, 2))) * slopes[1]).sum(-1)
        return total


def _product(tangent: Tensor, weight: Tensor) -> Tensor:
    """(n_members, n, k, a) times (n_members, a, b): one batched product per member."""
    return torch.bmm(tangent.flatten(1, 2), weight).unflatten(1, tangent.shape[1:3])


def _of_cells(rows: Tensor, n: int) -> Tensor:
    """Rows (n_members, n_rows, a) for n cells: one for all, one each, or one for every n / n_rows successive ones."""
    return rows if rows.shape[1] in (1, n) else rows.repeat_interleave(n // rows.shape[1], dim=1)
