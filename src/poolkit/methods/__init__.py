"""The methods, one file each. This list is the whole registry: nothing is scanned or decorated."""

from __future__ import annotations

from poolkit.map_method import HeadMethod, MapMethod
from poolkit.method import Method, WindowMethod
from poolkit.methods.ada import Ada
from poolkit.methods.alpha_integration import AlphaIntegration
from poolkit.methods.aps import APS
from poolkit.methods.attention import Attention
from poolkit.methods.avg import Avg
from poolkit.methods.avg_topk import AvgTopK
from poolkit.methods.bilinear import Bilinear
from poolkit.methods.blend import Blend
from poolkit.methods.blur import Blur
from poolkit.methods.compact_bilinear import CompactBilinear
from poolkit.methods.crow import CroW
from poolkit.methods.diff_stride import DiffStride
from poolkit.methods.dpp import DPP
from poolkit.methods.edscw import EDSCW
from poolkit.methods.fractional import Fractional
from poolkit.methods.fuzzy import Fuzzy
from poolkit.methods.gated import Gated
from poolkit.methods.gem import GeM
from poolkit.methods.genetic_weights import GeneticWeights
from poolkit.methods.inter_map import InterMap
from poolkit.methods.isqrt_cov import ISqrtCov
from poolkit.methods.k_max_min import KMaxMin
from poolkit.methods.latent_attention import LatentAttention
from poolkit.methods.lehmer import Lehmer
from poolkit.methods.lip import LIP
from poolkit.methods.lp import Lp
from poolkit.methods.lse import LSE
from poolkit.methods.mac import MAC
from poolkit.methods.max import Max
from poolkit.methods.max_blur import MaxBlur
from poolkit.methods.median import Median
from poolkit.methods.mil_attention import MILAttention
from poolkit.methods.min import Min
from poolkit.methods.mixed import Mixed
from poolkit.methods.mpm import MPM
from poolkit.methods.mpn_cov import MPNCov
from poolkit.methods.netvlad import NetVLAD
from poolkit.methods.ordinal import Ordinal
from poolkit.methods.per_pixel_pyramid import PerPixelPyramid
from poolkit.methods.ppm import PPM
from poolkit.methods.r_mac import RMAC
from poolkit.methods.rank_avg import RankAvg
from poolkit.methods.rank_stochastic import RankStochastic
from poolkit.methods.rank_weighted import RankWeighted
from poolkit.methods.roi import RoI
from poolkit.methods.roi_align import RoIAlign
from poolkit.methods.s3 import S3
from poolkit.methods.simpool import SimPool
from poolkit.methods.soft import Soft
from poolkit.methods.spatial_weighted import SpatialWeighted
from poolkit.methods.spectral import Spectral
from poolkit.methods.spoc import SPoC
from poolkit.methods.spp import SPP
from poolkit.methods.stochastic import Stochastic
from poolkit.methods.strided import Strided
from poolkit.methods.strip import Strip
from poolkit.methods.superpixel import Superpixel
from poolkit.methods.t_max_avg import TMaxAvg
from poolkit.methods.tree import Tree
from poolkit.methods.universal import Universal
from poolkit.methods.value_weighted import ValueWeighted
from poolkit.methods.wavelet import Wavelet

WINDOW_METHODS: dict[str, type[WindowMethod]] = {
    cls.card.name: cls
    for cls in (
        Max,
        Avg,
        Min,
        Median,
        Lp,
        GeM,
        LSE,
        Lehmer,
        AlphaIntegration,
        Soft,
        ValueWeighted,
        EDSCW,
        Ada,
        DPP,
        Fuzzy,
        RankAvg,
        RankWeighted,
        AvgTopK,
        TMaxAvg,
        KMaxMin,
        Blend,
        Gated,
        Tree,
        Ordinal,
        SpatialWeighted,
        GeneticWeights,
        Strided,
        Mixed,
        Stochastic,
        RankStochastic,
    )
}

MAP_METHODS: dict[str, type[MapMethod]] = {
    cls.card.name: cls
    for cls in (
        Blur,
        MaxBlur,
        APS,
        Spectral,
        DiffStride,
        InterMap,
        PerPixelPyramid,
        SPP,
        Wavelet,
        S3,
        Fractional,
        LIP,
        PPM,
        Strip,
        MPM,
        Superpixel,
        Universal,
        RoI,
        RoIAlign,
    )
}

HEADS: dict[str, type[HeadMethod]] = {
    cls.card.name: cls
    for cls in (
        Bilinear,
        CompactBilinear,
        ISqrtCov,
        MPNCov,
        NetVLAD,
        MILAttention,
        SimPool,
        Attention,
        LatentAttention,
        MAC,
        RMAC,
        SPoC,
        CroW,
    )
}

METHODS: dict[str, type[Method]] = {**WINDOW_METHODS, **MAP_METHODS, **HEADS}

__all__ = ["HEADS", "MAP_METHODS", "METHODS", "WINDOW_METHODS", *(cls.__name__ for cls in METHODS.values())]
