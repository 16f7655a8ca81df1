"""A convolution and the pooling after it in one: both are products in the Fourier domain.

Pooling throws most of a convolution's output away. A convolution of three taps multiplies each DFT bin
of its input by a matrix of its own, so only the bins that pooling keeps need to be multiplied:

    y = P (w * x)  =  synthesis.T @ (mask_k * W_k @ analysis_k @ x)_k,    W_k = sum_t w_t exp(2 pi i k (t - 1) / N)

A complex product is three real ones, so each pair of channels costs 3K = 1.5 (M + 1) of them, where a
convolution before the pooling takes 3N, and one after it 3M and three poolings instead of one. A circular
convolution wraps around: what that adds to the two end samples, where zeros should be, is taken away again, so
the result is that of convolving and pooling.

Sources: the convolution theorem; Gauss's three products; Riad et al., ICLR 2022, Algorithm 1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .crop_spectrum import LONG_AXIS
from .fourier import basis_rows, bin_weights, cached, fourier_basis
from .spectrum import Crop

TAPS = 3
CACHE_NUMBERS = 2_000_000
"""A batch is worked through in parts of about this many numbers, 8 MB: larger ones leave a CPU's caches."""


def conv_crop_spectrum(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, crop: Crop, dim: int) -> Tensor:
    """`crop_spectrum` along one axis of a convolution of three taps along that axis, with zero padding.

    Args:
        x: shape ``(batch, in_channels, *axes)`` with ``x.shape[dim] == crop.n``.
        weight: shape ``(out_channels, in_channels, 3)``.
        bias: shape ``(out_channels,)``.
        mask: see `crop_spectrum`; ``mask[0]`` is 1.
        crop: sizes of the axis.
        dim: the axis to convolve and pool, 2 or more.

    Returns:
        Shape ``(batch, out_channels, *axes)`` with ``shape[dim] == crop.m``, with channels last in memory.

    Raises:
        ValueError: if the axis is not `crop.n` long or longer than `LONG_AXIS`, or there are not three taps.

    Example:
        >>> from audiostride.layers.crop_spectrum import crop_spectrum
        >>> from audiostride.layers.spectrum import spectral_crop
        >>> x, conv = torch.randn(2, 4, 50, 8), torch.nn.Conv2d(4, 6, (3, 1), padding=(1, 0))
        >>> crop = spectral_crop(50, 2.0)
        >>> mask = torch.ones(crop.n_bins)
        >>> y = conv_crop_spectrum(x, conv.weight.flatten(2), conv.bias, mask, crop, dim=2)
        >>> torch.allclose(y, crop_spectrum(conv(x), mask, crop, dim=2), atol=1e-5)
        True
    """
    if x.shape[dim] != crop.n or crop.n > LONG_AXIS:
        raise ValueError(f"axis {dim} of shape {tuple(x.shape)} must be {crop.n} long, and at most {LONG_AXIS}")
    if weight.shape[2:] != (TAPS,):
        raise ValueError(f"the kernel must have {TAPS} taps, got a weight of shape {tuple(weight.shape)}")
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    mask = mask.to(torch.promote_types(mask.dtype, x.dtype))
    with torch.autocast(x.device.type, enabled=False):
        last = x.movedim(1, -1)
        sizes = last.shape[:-1]
        flat = last.reshape(sizes[: dim - 1].numel(), crop.n, sizes[dim:].numel(), -1)
        y = _ConvCrop.apply(flat, weight.to(x.dtype), bias.to(x.dtype), mask, crop)
        return y.view(*sizes[: dim - 1], crop.m, *sizes[dim:], -1).movedim(-1, 1)


@cached
def tap_turns(n: int, n_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How the three taps add up to the factors of each bin: c, s - c and s + c, for W = c + i s.

    With x = u - i v, the coefficients of W x are c (u + v) + (s - c) v and c (u + v) - (s + c) u.

    Returns:
        Tensor of shape ``(3 * n_bins, 3)``: c of all bins, then s - c, then s + c, by tap. It is
        shared: never write to it.

    Example:
        >>> tap_turns(4, 2, torch.float64, torch.device("cpu")).round().int().tolist()
        [[1, 1, 1], [0, 1, 0], [-1, -1, -1], [-1, -1, 1], [1, 1, 1], [-1, 1, 1]]
    """
    cos, sin = fourier_basis(n, torch.float64, device)[:, :n_bins, 1]  # of the turn of one sample
    c, s = torch.stack([cos, torch.ones_like(cos), cos], 1), torch.stack([-sin, torch.zeros_like(sin), sin], 1)
    return torch.cat([c, s - c, s + c]).to(dtype)


class _ConvCrop(torch.autograd.Function):
    """`conv_crop_spectrum` on ``(outer, n, inner, in_channels)``.

    All that is made on the way holds the cosine coefficients of all bins, then their sine coefficients; products
    have a third part. "Columns" have three rows more: what the last and the first sample would wrap to, and ones.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, crop: Crop) -> Tensor:
        outer, n, inner, _ = x.shape
        c_out, k = len(weight), crop.n_bins
        analysis, synthesis = basis_rows(n, 0, k, x), _synthesis(mask, crop).to(x.dtype)
        factors = _factors(weight, mask, crop)
        y = x.new_empty(outer, crop.m, inner, c_out)
        for part in _parts(x, c_out):
            length = part.stop - part.start
            terms = _input_terms(analysis, x[part])
            common, sine, cosine = torch.bmm(terms, factors).view(3, k, length, inner, c_out)
            columns = x.new_empty(length, 2 * k + 3, inner, c_out)
            torch.add(common, sine, out=columns[:, :k].transpose(0, 1))
            torch.sub(common, cosine, out=columns[:, k : 2 * k].transpose(0, 1))
            columns[:, -3] = x[part, -1] @ weight[..., 0].T
            columns[:, -2] = x[part, 0] @ weight[..., 2].T
            columns[:, -1] = bias
            torch.matmul(synthesis, columns.flatten(2), out=y[part].view(length, crop.m, -1))
        ctx.crop = crop
        ctx.save_for_backward(x, weight, mask, synthesis)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, mask, synthesis = ctx.saved_tensors
        crop, (_, n, inner, c_in) = ctx.crop, x.shape
        c_out, k = len(weight), crop.n_bins
        analysis, synthesis = basis_rows(n, 0, k, grad), synthesis.T.contiguous()
        factors, left, right = _factors(weight, mask, crop).transpose(1, 2), weight[..., 0], weight[..., 2]
        begin, end = crop.ramp
        ramp = basis_rows(n, begin, end, mask)
        grad_x = x.new_empty(x.shape)
        grad_factors = mask.new_zeros(3 * k, c_in, c_out)
        grad_weight, grad_bias = mask.new_zeros(weight.shape), mask.new_zeros(c_out)
        grad_ramp = mask.new_zeros(len(ramp))
        for part in _parts(x, c_out):
            length = part.stop - part.start
            terms = _input_terms(analysis, x[part])
            columns = (synthesis @ grad[part].reshape(length, crop.m, -1)).view(length, 2 * k + 3, inner, c_out)
            cosine, sine = _by_bin(columns[:, : 2 * k])
            products = _terms(cosine, sine, cosine, -sine)
            if grad.dtype == mask.dtype:
                grad_factors.baddbmm_(terms.transpose(1, 2), products)
            else:
                grad_factors += torch.bmm(terms.transpose(1, 2), products)
            common, sine, cosine = torch.bmm(products, factors).view(3, k, length, inner, c_in)
            coefficients = grad.new_empty(length, 2 * k, inner, c_in)
            torch.add(common, cosine, out=coefficients[:, :k].transpose(0, 1))
            torch.add(common, sine, out=coefficients[:, k:].transpose(0, 1))
            torch.matmul(analysis.T, coefficients.flatten(2), out=grad_x[part].view(length, n, -1))
            wrapped_last, wrapped_first = columns[:, -3], columns[:, -2]
            grad_x[part, -1] += wrapped_last @ left
            grad_x[part, 0] += wrapped_first @ right
            grad_weight[..., 0] += wrapped_last.flatten(0, 1).T @ x[part, -1].flatten(0, 1)
            grad_weight[..., 2] += wrapped_first.flatten(0, 1).T @ x[part, 0].flatten(0, 1)
            grad_bias += columns[:, -1].sum((0, 1))
            if ctx.needs_input_grad[3]:
                on_ramp = torch.cat([columns[:, begin:end], columns[:, k + begin : k + end]], 1)
                for ends, sample in ((x[part, -1] @ left.T, 0), (x[part, 0] @ right.T, -1)):
                    grad_ramp -= ramp[:, sample] * (on_ramp * ends[:, None]).sum((0, 2, 3), dtype=mask.dtype)
        turns, grad_factors = tap_turns(n, k, mask.dtype, grad.device), grad_factors.flatten(1)
        grad_weight += ((turns * mask.repeat(3)[:, None]).T @ grad_factors).view(TAPS, c_in, c_out).permute(2, 1, 0)
        grad_mask = None
        if ctx.needs_input_grad[3]:
            by_tap = grad_factors @ weight.permute(2, 1, 0).reshape(TAPS, -1).T.to(mask.dtype)
            grad_mask = (turns * by_tap).view(3, k, TAPS).sum((0, 2))
            grad_mask[begin:end] += grad_ramp.view(2, -1).sum(0)
            grad_mask[:begin] = 0
            grad_mask[end:] = 0
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), grad_mask, None


def _factors(weight: Tensor, mask: Tensor, crop: Crop) -> Tensor:
    """What each bin's coefficients and their sum are multiplied by, ``(3 * n_bins, in_channels, out_channels)``."""
    turns = tap_turns(crop.n, crop.n_bins, mask.dtype, weight.device) * mask.repeat(3)[:, None]
    taps = weight.permute(2, 1, 0).reshape(TAPS, -1)
    return (turns.to(weight.dtype) @ taps).view(-1, weight.shape[1], weight.shape[0])


def _synthesis(mask: Tensor, crop: Crop) -> Tensor:
    """What makes the pooled axis of columns, ``(m, 2 * n_bins + 3)``."""
    weights = bin_weights(crop.n, mask.dtype, mask.device)[: crop.n_bins]
    bins = basis_rows(crop.m, 0, crop.n_bins, mask).T * weights.repeat(2)
    wrapped = bins @ (mask.repeat(2)[:, None] * basis_rows(crop.n, 0, crop.n_bins, mask)[:, [0, -1]])
    return torch.cat([bins, -wrapped, bins.new_ones(crop.m, 1)], 1)


def _by_bin(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine rows of ``(outer, rows, inner, channels)`` as views ``(n_bins, outer, inner, channels)``."""
    cosine, sine = rows.transpose(0, 1).chunk(2)
    return cosine, sine


def _input_terms(analysis: Tensor, x: Tensor) -> Tensor:
    """What the three products multiply, of ``(outer, n, inner, in_channels)``: cosine + sine, sine and cosine rows."""
    cosine, sine = _by_bin((analysis @ x.flatten(2)).unflatten(2, x.shape[2:]))
    return _terms(cosine, sine, sine, cosine)


def _terms(cosine: Tensor, sine: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Sums of cosine and sine rows and two more of their size, ``(3 * n_bins, outer * inner, channels)``."""
    terms = cosine.new_empty(3, *cosine.shape)
    torch.add(cosine, sine, out=terms[0])
    terms[1], terms[2] = second, third
    return terms.flatten(2, 3).flatten(0, 1)


def _parts(x: Tensor, c_out: int) -> Iterator[slice]:
    """Slices of the first dimension of ``(outer, n, inner, in_channels)``, small enough for a CPU's caches."""
    each = x[0].numel() // x.shape[-1] * max(x.shape[-1], c_out)
    step = max(1, CACHE_NUMBERS // each) if x.device.type == "cpu" else len(x)
    return (slice(i, min(i + step, len(x))) for i in range(0, len(x), step))
