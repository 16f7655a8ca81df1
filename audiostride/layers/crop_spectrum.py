"""Downsampling one axis by cropping its spectrum.

A product with the axis' `pooling_matrix`: no complex numbers, and on the sizes of a CNN faster than two
FFTs. `crop_spectrum` is that product with a backward of its own; `crop_spectrum_fft` is the textbook
form, used for long axes and as the oracle of the tests.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .pooling_matrix import basis_rows, bin_weights, constant_matrix, pooling_matrix, sampling_matrix, shift_columns
from .spectrum import Crop, diffstride_mask

LONG_AXIS = 1024
"""Axes longer than this go through the FFT: a 1024 x 1024 float32 matrix is 4 MB, about one L2 cache."""


def crop_spectrum(
    x: Tensor, mask: Tensor, crop: Crop, dim: int, taps: int = 1, aliasing: Tensor | None = None
) -> Tensor:
    """Downsample `x` along `dim`: weight its spectrum by `mask`, keep the first bins, transform back.

    Scaled so that a constant stays that constant. Pooling is circular: the last sample leaks into
    the first. `scipy.signal.resample(x, M, window=mask)` is the same operation.

    Args:
        x: real tensor with ``x.shape[dim] == crop.n``.
        mask: weights of the kept bins, shape ``(n_bins,)``; may require grad on ``crop.ramp``.
        crop: sizes, from `diffstride_crop` or `spectral_crop`.
        dim: the axis to downsample.
        taps: odd; more than 1 downsamples that many shifted copies of `x`, interleaved along `dim`,
            for a convolution with this kernel length and stride to add up, see `shift_columns`.
        aliasing: alpha in [0, 1], the share that is not filtered out before sampling of every bin that the
            mask weakens or crops; may require grad. A scalar, or with one tap a tensor that broadcasts to `x` and
            is 1 long along `dim`, such as one of each channel. None is 0.

    Returns:
        Tensor like `x` with ``shape[dim] == crop.m * taps``.

    Raises:
        ValueError: if the axis is not `crop.n` long.

    Example:
        >>> from audiostride.layers.spectrum import spectral_crop
        >>> crop = spectral_crop(100, 2.0)
        >>> crop_spectrum(torch.full((1, 100), 7.0), torch.ones(crop.n_bins), crop, dim=1).round().unique()
        tensor([7.])
    """
    dim = dim % x.dim()
    if x.shape[dim] != crop.n:
        raise ValueError(f"axis {dim} of a tensor of shape {tuple(x.shape)} is not {crop.n} long")
    if crop.n > LONG_AXIS and taps == 1:
        return crop_spectrum_fft(x, mask, crop, dim, aliasing)
    mask = mask.to(torch.promote_types(mask.dtype, x.dtype))
    return _product(x, mask, None, aliasing, crop, dim, taps)


def crop_spectrum_constant(
    x: Tensor,
    crop: Crop,
    dim: int,
    stride: float | None = None,
    smoothness: float = 1.0,
    taps: int = 1,
    aliasing: float | Tensor | None = None,
) -> Tensor:
    """`crop_spectrum` for a stride that does not learn: one cached matrix, one matrix product.

    Args:
        x: real tensor with ``x.shape[dim] == crop.n``.
        crop: sizes, from `diffstride_crop` or `spectral_crop`.
        dim: the axis to downsample.
        stride: DiffStride's stride; None is the hard mask of spectral pooling.
        smoothness: DiffStride's ramp width R, in bins.
        taps: see `crop_spectrum`.
        aliasing: alpha in [0, 1], a tensor as in `crop_spectrum` if it learns; None is 0.

    Returns:
        Tensor like `x` with ``shape[dim] == crop.m * taps``.

    Example:
        >>> from audiostride.layers.spectrum import spectral_crop
        >>> crop_spectrum_constant(torch.ones(1, 100), spectral_crop(100, 2.0), dim=1).shape
        torch.Size([1, 50])
    """
    dim = dim % x.dim()
    if crop.n > LONG_AXIS and taps == 1:
        mask = torch.ones(crop.n_bins, device=x.device)
        if stride is not None:
            mask = diffstride_mask(crop, torch.tensor(stride, device=x.device), smoothness)
        alpha = None if aliasing is None else torch.as_tensor(aliasing, device=x.device)
        return crop_spectrum_fft(x, mask, crop, dim, alpha)
    if isinstance(aliasing, Tensor):
        dtype = torch.promote_types(x.dtype, torch.float32)
        plain = constant_matrix(crop, stride, smoothness, None, 1, dtype, x.device)
        return _product(x, None, plain, aliasing, crop, dim, taps)
    matrix = constant_matrix(crop, stride, smoothness, aliasing, taps, x.dtype, x.device)
    flat, restore = _flatten_around(x, dim)
    with torch.autocast(x.device.type, enabled=False):
        return restore(matrix @ flat, crop.m * taps)


def _product(
    x: Tensor, mask: Tensor | None, plain: Tensor | None, aliasing: Tensor | None, crop: Crop, dim: int, taps: int
) -> Tensor:
    """The product of `x` with the pooling matrix of a mask that learns, or with `plain`, that of one that does not."""
    flat, restore = _flatten_around(x, dim)
    of_copies = aliasing is not None and taps > 1  # then autograd goes through the whole matrix
    with torch.autocast(x.device.type, enabled=False):
        if mask is not None:
            plain = pooling_matrix(mask if of_copies else mask.detach(), crop)
        assert plain is not None
        if aliasing is not None and aliasing.dim():
            pooled, folded = (restore(part, crop.m) for part in _PoolApart.apply(flat, mask, plain, crop))
            return torch.addcmul(pooled, aliasing.to(x.dtype), folded)
        if aliasing is None or taps == 1:
            return restore(_PoolByMatrix.apply(flat, mask, aliasing, plain, crop, taps), crop.m * taps)
        matrix = plain.lerp(sampling_matrix(crop.n, crop.m, plain.dtype, x.device), aliasing.to(plain.dtype))
        return restore(_ApplyMatrix.apply(flat, shift_columns(matrix, taps)), crop.m * taps)


def _flatten_around(x: Tensor, dim: int) -> tuple[Tensor, Callable[[Tensor, int], Tensor]]:
    """`x` as ``(outer, n, inner)``, as it is in memory (channels last or not), and what undoes that for another n."""
    channels_last = x.dim() in (4, 5) and not x.is_contiguous()
    if channels_last:
        x, dim = x.movedim(1, -1), dim - 1
    before, after = x.shape[:dim], x.shape[dim + 1 :]

    def restore(flat: Tensor, rows: int) -> Tensor:
        y = flat.reshape(*before, rows, *after)
        return y.movedim(-1, 1) if channels_last else y

    return x.reshape(-1, x.shape[dim], math.prod(after)), restore


class _PoolByMatrix(torch.autograd.Function):
    """``shift_columns(pooling_matrix(mask, crop, aliasing), taps) @ x``, keeping only what its own gradients need.

    With P = sum_k mask_k w_k s_k a_k^T, rows a_k of the DFT, rows s_k of the inverse one and their weights w_k, and
    with F the `sampling_matrix`, y = ((1 - alpha) P + alpha F) x. For the gradient g of y:

        dx = ((1 - alpha) P + alpha F)^T g,    dmask_k = (1 - alpha) w_k (s_k^T g) (a_k^T x),    dalpha = g^T (F - P) x

    The mask depends on the stride on the ramp's bins alone, so the backward pass needs a_k^T x there (about 2R rows)
    instead of x, and for alpha, which comes with one tap only, (F - P) x. `plain` is P; `mask` is None where
    it does not learn.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor | None, aliasing: Tensor | None, plain: Tensor, crop: Crop, taps: int):
        rows, matrix = [x.new_empty(0, crop.n)], plain
        if ctx.needs_input_grad[1]:
            rows.append(shift_columns(basis_rows(crop.n, *crop.ramp, x), taps))
        if aliasing is not None:
            sampling = sampling_matrix(crop.n, crop.m, plain.dtype, x.device)
            matrix = plain.lerp(sampling, aliasing.to(plain.dtype))
            rows.append((sampling - plain).to(x.dtype))
        matrix = shift_columns(matrix, taps).to(x.dtype)
        ctx.crop, ctx.taps, ctx.mask = crop, taps, None if mask is None else (mask.shape, mask.dtype)
        ctx.save_for_backward(matrix, aliasing, torch.cat(rows) @ x if any(ctx.needs_input_grad[1:3]) else None)
        return matrix @ x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        matrix, aliasing, kept = ctx.saved_tensors
        crop, (first, last) = ctx.crop, ctx.crop.ramp
        grad_x = matrix.T @ grad if ctx.needs_input_grad[0] else None
        grad_mask = grad_aliasing = None
        if ctx.needs_input_grad[1]:
            grad_mask = _mask_gradient(grad, kept[:, : 2 * (last - first) * ctx.taps], ctx.mask, crop)
            if aliasing is not None:
                grad_mask *= 1 - aliasing.to(grad_mask.dtype)
        if ctx.needs_input_grad[2]:
            grad_aliasing = (grad * kept[:, kept.shape[1] - crop.m :]).sum(dtype=aliasing.dtype)
        return grad_x, grad_mask, grad_aliasing, None, None, None


class _PoolApart(torch.autograd.Function):
    """``P @ x`` and ``(F - P) @ x``, what aliasing adds where alpha is 1, for channels that differ in alpha.

    `plain` is P, the `pooling_matrix` of `mask`, which is None where it does not learn; F is the `sampling_matrix`.
    Where m divides n, F reads off every n / m-th sample, which takes no product. For gradients g of the first and h of
    the second output, P receives g - h: dx = P^T (g - h) + F^T h, and the mask's gradient is that of `_PoolByMatrix`
    for g - h.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor | None, plain: Tensor, crop: Crop):
        rows = [x.new_empty(0, crop.n)]
        if ctx.needs_input_grad[1]:
            rows.append(basis_rows(crop.n, *crop.ramp, x))
        folding = None
        if crop.n % crop.m:
            folding = (sampling_matrix(crop.n, crop.m, plain.dtype, x.device) - plain).to(x.dtype)
            rows.append(folding)
        plain = plain.to(x.dtype)
        pooled, products = plain @ x, torch.cat(rows) @ x
        if folding is None:
            kept, folded = products, x[:, :: crop.n // crop.m] - pooled
        else:
            kept, folded = products.tensor_split([products.shape[1] - crop.m], dim=1)
        ctx.crop, ctx.mask = crop, None if mask is None else (mask.shape, mask.dtype)
        ctx.save_for_backward(plain, folding, kept)
        return pooled, folded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, grad_folded: Tensor):
        plain, folding, kept = ctx.saved_tensors
        grad_x = grad_mask = None
        difference = grad - grad_folded
        if ctx.needs_input_grad[0] and folding is None:
            grad_x = plain.T @ difference
            grad_x[:, :: ctx.crop.n // ctx.crop.m] += grad_folded
        elif ctx.needs_input_grad[0]:
            grad_x = torch.cat([plain, folding]).T @ torch.cat([grad, grad_folded], 1)
        if ctx.needs_input_grad[1]:
            grad_mask = _mask_gradient(difference, kept, ctx.mask, ctx.crop)
        return grad_x, grad_mask, None, None


def _mask_gradient(grad: Tensor, coefficients: Tensor, mask: tuple[torch.Size, torch.dtype], crop: Crop) -> Tensor:
    # d y / d mask_k = weight_k * (synthesis_k outer analysis_k) @ x; analysis_k @ x are the coefficients.
    (first, last), (shape, dtype) = crop.ramp, mask
    by_tap = grad.reshape(grad.shape[0], crop.m, -1)
    product = basis_rows(crop.m, first, last, grad) @ by_tap
    per_row = (product * coefficients.reshape(product.shape)).sum(dim=(0, 2), dtype=dtype)
    gradient = torch.zeros(shape, dtype=dtype, device=grad.device)
    gradient[first:last] = bin_weights(crop.n, dtype, grad.device)[first:last] * per_row.view(2, -1).sum(0)
    return gradient


class _ApplyMatrix(torch.autograd.Function):
    """``matrix @ x`` for ``(outer, n, inner)``, keeping the input, for the gradient of every number of the matrix.

    dx = matrix^T g and dmatrix = sum over outer of g x^T. For pooled copies of the input of a convolution, whose input
    may be recomputed and not kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix)
        # Detached: for a matrix that requires grad torch transposes the product, which copies the map twice.
        return matrix.detach().to(x.dtype) @ x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, matrix = ctx.saved_tensors
        grad_x = matrix.to(grad.dtype).T @ grad if ctx.needs_input_grad[0] else None
        grad_matrix = None
        if ctx.needs_input_grad[1]:  # several times faster than an einsum, which copies both first
            grad_matrix = torch.bmm(grad, x.transpose(1, 2)).sum(0, dtype=matrix.dtype)
        return grad_x, grad_matrix


def crop_spectrum_fft(x: Tensor, mask: Tensor, crop: Crop, dim: int, aliasing: Tensor | None = None) -> Tensor:
    """`crop_spectrum` in its textbook form: irfft_M(mask * rfft_N(x)[:K]) * M / N, along `dim`.

    With aliasing, all bins k are added up to bin k modulo M as well, which samples at the times i N / M.
    Computed in at least float32 (half-precision FFTs need power-of-two lengths) and cast back.

    Example:
        >>> from audiostride.layers.spectrum import diffstride_crop
        >>> x, crop = torch.randn(3, 100), diffstride_crop(100, 2.0, 4.0)
        >>> mask = diffstride_mask(crop, torch.tensor(2.0), 4.0)
        >>> fft, matrix = crop_spectrum_fft(x, mask, crop, dim=1), crop_spectrum(x, mask, crop, dim=1)
        >>> torch.allclose(fft, matrix, atol=1e-5)
        True
    """
    real = x.movedim(dim, -1).to(torch.promote_types(x.dtype, torch.float32))
    whole = torch.fft.rfft(real)
    spectrum = whole[..., : crop.n_bins] * mask
    if crop.m < crop.n and crop.m % 2 == 0:  # the new Nyquist bin stands for +k and -k of the input
        spectrum = torch.cat([spectrum[..., :-1], 2 * spectrum[..., -1:]], dim=-1)
    pooled = torch.fft.irfft(spectrum, n=crop.m) * (crop.m / crop.n)
    if aliasing is not None:
        weighted = whole * bin_weights(crop.n, real.dtype, x.device)
        weighted = torch.nn.functional.pad(weighted, (0, -weighted.shape[-1] % crop.m))
        sampled = torch.fft.ifft(weighted.unflatten(-1, (-1, crop.m)).sum(-2)).real * crop.m
        pooled = pooled.lerp(sampled, aliasing.to(real.dtype))
    return pooled.to(x.dtype).movedim(-1, dim)
