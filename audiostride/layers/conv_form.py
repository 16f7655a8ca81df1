"""In which of two forms a convolution followed by pooling runs, and what each costs."""

from .spectrum import Crop


def pools_first(in_channels: int, out_channels: int, taps: int, crop: Crop, others: int = 1) -> bool:
    """Whether a convolution followed by pooling runs on pooled copies of its input.

    Chosen where that saves at least a quarter of the multiply-accumulates: in the first layer, and in wide layers that
    halve their axis. Some narrow layers are faster with it although it saves them nothing
    (`benchmarks/conv_resolution.py`), but whole training steps are not, as the copies are kept or pooled again.

    Example:
        >>> from audiostride.layers.spectrum import diffstride_crop
        >>> crop = diffstride_crop(100, 2.0, 1.0)
        >>> pools_first(1, 64, 3, crop), pools_first(64, 64, 3, crop), pools_first(512, 512, 3, crop)
        (True, False, True)
    """
    full, pooled = conv_macs(in_channels, out_channels, taps, crop, others)
    return pooled < 0.75 * full


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
