"""In which of its forms a convolution followed by pooling runs: what each costs, and which is the fastest."""

from .crop_spectrum import LONG_AXIS
from .spectrum import Crop


def pools_first(in_channels: int, out_channels: int, taps: int, crop: Crop, others: int = 1) -> bool:
    """Whether a convolution followed by pooling runs faster on the pooled copies of its input.

    Chosen where that saves at least a quarter of the multiply-accumulates, from where on it is faster
    (`benchmarks/conv_resolution.py`): in the first layer, and in wide layers that halve their axis.

    Example:
        >>> from audiostride.layers.spectrum import diffstride_crop
        >>> crop = diffstride_crop(100, 2.0, 1.0)
        >>> pools_first(1, 64, 3, crop), pools_first(64, 64, 3, crop), pools_first(512, 512, 3, crop)
        (True, False, True)
    """
    full, pooled = conv_macs(in_channels, out_channels, taps, crop, others)
    return pooled < 0.75 * full


def convolves_in_spectrum(columns: int, in_channels: int, out_channels: int, taps: int, crop: Crop) -> bool:
    """Whether a convolution and its pooling run faster as `conv_crop_spectrum`.

    Chosen where that saves a quarter of the multiply-accumulates of the cheaper of the other two forms, and
    where there is enough to do: a matrix for every bin has to be made, which pays from as many columns as
    channels, and the transforms take longer than their arithmetic says, which wide layers and large batches
    hide (`benchmarks/conv_resolution.py`, on a CPU).

    Args:
        columns: numbers of a channel of the input, without the axis.
        in_channels: of the convolution.
        out_channels: of the convolution.
        taps: kernel length.
        crop: sizes of the axis.

    Example:
        >>> from audiostride.layers.spectrum import diffstride_crop
        >>> crop = diffstride_crop(100, 2.0, 1.0)
        >>> [convolves_in_spectrum(batch * 64, 64, 64, 3, crop) for batch in (8, 64)]
        [False, True]
    """
    products = in_channels * out_channels
    if taps != 3 or crop.n > LONG_AXIS:
        return False
    if columns < max(in_channels, out_channels) or columns * products < 12_000_000:
        return False
    spectrum = crop.n_bins * (2 * crop.n * in_channels + 3 * products + 2 * crop.m * out_channels)
    return spectrum < 0.75 * min(conv_macs(in_channels, out_channels, taps, crop))


def conv_macs(in_channels: int, out_channels: int, taps: int, crop: Crop, others: int = 1) -> tuple[int, int]:
    """Multiply-accumulates of a column by convolving before a pooling, and after it on pooled copies.

    `taps` is the kernel's length along the pooled axis, `others` the product of its lengths along the others.

    Example:
        >>> from audiostride.layers.spectrum import diffstride_crop
        >>> conv_macs(1, 64, 3, diffstride_crop(100, 2.0, 1.0))
        (345600, 25092)
    """
    full = taps * others * in_channels * out_channels * crop.n + crop.m * crop.n * out_channels
    pooled = taps * others * in_channels * out_channels * crop.m + crop.m * crop.n * in_channels * taps
    return full, pooled
