"""Every pooling method for convolutional networks: one line to swap, proven correct.

    >>> from poolkit import Soft, method
    >>> method("soft:beta=2") == Soft(beta=2)
    True

The layers are in `poolkit.torch`; importing `poolkit` imports no framework.
"""

from __future__ import annotations

from poolkit.map_method import HeadMethod, Map, MapMethod, MapShape, OneMap, Weight
from poolkit.method import Card, Fact, Learn, Method, Param, Values, WindowMethod, learn, param, parse
from poolkit.methods import (
    APS,
    DPP,
    EDSCW,
    HEADS,
    LIP,
    LSE,
    MAC,
    MAP_METHODS,
    METHODS,
    MPM,
    PPM,
    RMAC,
    S3,
    SPP,
    WINDOW_METHODS,
    Ada,
    AlphaIntegration,
    Attention,
    Avg,
    AvgTopK,
    Bilinear,
    Blend,
    Blur,
    CompactBilinear,
    CroW,
    DiffStride,
    Fractional,
    Fuzzy,
    Gated,
    GeM,
    GeneticWeights,
    InterMap,
    ISqrtCov,
    KMaxMin,
    LatentAttention,
    Lehmer,
    Lp,
    Max,
    MaxBlur,
    Median,
    MILAttention,
    Min,
    Mixed,
    MPNCov,
    NetVLAD,
    Ordinal,
    PerPixelPyramid,
    RankAvg,
    RankStochastic,
    RankWeighted,
    RoI,
    RoIAlign,
    SimPool,
    Soft,
    SpatialWeighted,
    Spectral,
    SPoC,
    Stochastic,
    Strided,
    Strip,
    Superpixel,
    TMaxAvg,
    Tree,
    Universal,
    ValueWeighted,
    Wavelet,
)
from poolkit.window import Window, window
from poolkit.xp import Cells, OneWindow

__version__ = "0.1.0"


def method(spelling: str | Method) -> Method:
    """The method of a spelling such as `soft:beta=2`; a method is returned as it is.

    One of your own is spelled `my_module:MyPool:b=2`. Its module is imported, from the current folder first: that runs
    its code, so give no spelling from a file of somebody else's.

    Raises:
        ValueError: unknown name, parameter or value, and the message names the nearest ones; or no such class.
        TypeError: neither a spelling nor a method.
    """
    if isinstance(spelling, Method):
        return spelling
    if not isinstance(spelling, str):
        raise TypeError(f'expected a method such as Soft() or a spelling such as "soft:beta=2", got {spelling!r}')
    if ":" in spelling and spelling.partition(":")[0].strip() not in METHODS:
        from poolkit import own

        if own.names_own(spelling):
            return own.read(spelling)
    return parse(spelling, METHODS)


__all__ = [
    "DiffStride",
    "MPM",
    "RoI",
    "MPNCov",
    "LatentAttention",
    "RMAC",
    "CroW",
    "APS",
    "Ada",
    "AlphaIntegration",
    "Avg",
    "AvgTopK",
    "Bilinear",
    "CompactBilinear",
    "ISqrtCov",
    "NetVLAD",
    "MILAttention",
    "SimPool",
    "Attention",
    "MAC",
    "SPoC",
    "Blend",
    "Blur",
    "Card",
    "Cells",
    "DPP",
    "EDSCW",
    "Fact",
    "Fractional",
    "Fuzzy",
    "Gated",
    "GeM",
    "GeneticWeights",
    "HEADS",
    "HeadMethod",
    "InterMap",
    "KMaxMin",
    "LIP",
    "LSE",
    "Learn",
    "Lehmer",
    "Lp",
    "MAP_METHODS",
    "METHODS",
    "Map",
    "MapMethod",
    "MapShape",
    "Max",
    "MaxBlur",
    "Median",
    "Method",
    "Min",
    "Mixed",
    "OneMap",
    "OneWindow",
    "Ordinal",
    "PPM",
    "Param",
    "PerPixelPyramid",
    "RankAvg",
    "RankStochastic",
    "RankWeighted",
    "RoIAlign",
    "S3",
    "SPP",
    "Soft",
    "SpatialWeighted",
    "Spectral",
    "Stochastic",
    "Strided",
    "Strip",
    "Superpixel",
    "TMaxAvg",
    "Tree",
    "Universal",
    "ValueWeighted",
    "Values",
    "WINDOW_METHODS",
    "Wavelet",
    "Weight",
    "Window",
    "WindowMethod",
    "__version__",
    "learn",
    "method",
    "param",
    "window",
]
