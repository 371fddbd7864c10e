"""Layers on the sphere that commute with rotations: every name that a network is built from."""

from model.blocks import Decoder, Encoder, PointwiseNonlinearity, ResidualBlock, to_modal, to_nodal
from model.filters import Features, ZonalFilter, truncate, zero_pad
from model.normalisation import SpectralBatchNorm, SpectralNorm

__all__ = [
    "Decoder",
    "Encoder",
    "Features",
    "PointwiseNonlinearity",
    "ResidualBlock",
    "SpectralBatchNorm",
    "SpectralNorm",
    "ZonalFilter",
    "to_modal",
    "to_nodal",
    "truncate",
    "zero_pad",
]
