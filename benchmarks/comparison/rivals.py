"""The rivals' networks: torch-harmonics' example models as they come, and a planar ResNet.

All map (batch, channel, latitude, longitude) to the same grid. A residual network of weather states predicts a change, so
none is asked to reproduce its input.
"""

from __future__ import annotations

import torch
from torch import nn
from torch_harmonics.examples import models

__all__ = ["BUILDERS", "build"]


def build(kind: str, shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    """Return a network.

    Args:
        kind: a key of `BUILDERS`.
        shape: latitudes, both poles among them, and longitudes.
        inputs, outputs: channels.
        width: hidden features.
    """
    return BUILDERS[kind](shape, inputs, outputs, width)


def _sfno(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    return models.SphericalFourierNeuralOperator(**_operator(shape, inputs, outputs, width))


def _lsno(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    return models.LocalSphericalNeuralOperator(**_operator(shape, inputs, outputs, width))


def _operator(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> dict:
    # The finest internal grid: the default of a third leaves 10 degrees of 31.
    return {
        "img_size": shape,
        "grid": "equiangular",
        "scale_factor": 1,
        "in_chans": inputs,
        "out_chans": outputs,
        "embed_dim": width,
        "num_layers": 4,
        "normalization_layer": "instance_norm",
    }


def _transformer(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    # Neighbourhood attention on the full grid takes seconds an update on a CPU; half the resolution is its default's spirit.
    options = _operator(shape, inputs, outputs, width) | {"scale_factor": 2, "num_heads": 4}
    return models.SphericalTransformer(**options)


def _unet(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    return models.SphericalUNet(
        img_size=shape,
        grid="equiangular",
        in_chans=inputs,
        out_chans=outputs,
        embed_dims=[width, 2 * width, 4 * width],
        depths=[2, 2, 2],
        # Dropout is for images that come by again; a state of the atmosphere does not.
        drop_conv_rate=0.0,
        drop_path_rate=0.0,
        drop_dense_rate=0.0,
    )


class PlanarResNet(nn.Module):
    """Residual convolutions on the latitude-longitude plane, periodic in longitude and zero beyond the poles.

    After Rasp & Thuerey (2021, JAMES 13, e2020MS002405): a 7 x 7 convolution, then blocks of convolution, LeakyReLU and
    batch norm, twice each, added to their input. Fewer blocks than their 19, as the budget allows, and no dropout.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int = 8) -> None:
        super().__init__()
        self.first = _Periodic(inputs, width, 7)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(layer for _ in range(2) for layer in self._unit(width))) for _ in range(blocks)
        )
        self.last = _Periodic(width, outputs, 3)

    @staticmethod
    def _unit(width: int) -> list[nn.Module]:
        return [_Periodic(width, width, 3), nn.LeakyReLU(0.3), nn.BatchNorm2d(width)]

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, latitude, longitude) to the same axes."""
        hidden = nn.functional.leaky_relu(self.first(fields), 0.3)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


class _Periodic(nn.Module):
    """A convolution that goes round in longitude."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.pad = size // 2
        self.convolution = nn.Conv2d(inputs, outputs, size)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        around = nn.functional.pad(fields, (self.pad, self.pad, 0, 0), mode="circular")
        return self.convolution(nn.functional.pad(around, (0, 0, self.pad, self.pad)))


def _resnet(shape: tuple[int, int], inputs: int, outputs: int, width: int) -> nn.Module:
    return PlanarResNet(inputs, outputs, width)


BUILDERS = {"sfno": _sfno, "lsno": _lsno, "s2unet": _unet, "s2transformer": _transformer, "resnet": _resnet}
"""Functions of (shape, inputs, outputs, width)."""
