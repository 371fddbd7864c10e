"""TPU chips and the slices they come in: what a plan needs to know of machines that are not here.

Figures per chip are those of Google Cloud's pages of system architecture (`Chip.source`). A link's bandwidth is the pod's
bisection bandwidth divided by the links that a plane through the middle of the torus cuts, or, where only a chip's
bandwidth is given, that divided by its ports; the clock is that at which the matrix units reach the stated peak.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from transforms.errors import InputError

__all__ = ["CHIPS", "Chip", "Topology"]


@dataclass(frozen=True)
class Chip:
    """One TPU chip, which is one device.

    Attributes:
        hbm: bytes of memory.
        peak: bfloat16 operations in a second; float32 products at full precision take six bfloat16 passes.
        bandwidth: of the memory, bytes/s.
        link: bytes/s over one link of the interconnect in one direction; a chip has two links along every axis.
        clock: cycles/s.
        axes: dimensions of the interconnect.
        wraps: chips along an axis from which (and at multiples of which) it closes to a ring.
        pod: most chips in a slice.
        configuration: name the compiler knows the chip's cores by; ``megacore`` joins two to one device.
        source: public page of the figures.
    """

    hbm: float
    peak: float
    bandwidth: float
    link: float
    clock: float
    axes: int
    wraps: int
    pod: int
    configuration: str
    source: str


CHIPS = {
    # 24 TB/s cut 512 links of 16 x 16 x 16 chips; 8 matrix units of 128 x 128.
    "v4": Chip(
        32 * 2**30, 275e12, 1.2e12, 24e12 / 512, 1.05e9, 3, 4, 4096, "megacore", "https://cloud.google.com/tpu/docs/v4"
    ),
    # 1.6 TB/s cut 32 links of 16 x 16 chips; 4 matrix units of 128 x 128.
    "v5e": Chip(
        16e9, 197e12, 8.19e11, 1.6e12 / 32, 1.5e9, 2, 16, 256, "default", "https://cloud.google.com/tpu/docs/v5e"
    ),
    # 4800 Gbit/s from 6 ports; 8 matrix units of 128 x 128.
    "v5p": Chip(95e9, 459e12, 2.765e12, 1e11, 1.75e9, 3, 4, 6144, "megacore", "https://cloud.google.com/tpu/docs/v5p"),
    # 3.2 TB/s cut 32 links of 16 x 16 chips; 4 units' worth of 256 x 256.
    "v6e": Chip(
        32e9, 918e12, 1.6e12, 3.2e12 / 32, 1.75e9, 2, 16, 256, "default", "https://cloud.google.com/tpu/docs/v6e"
    ),
}


@dataclass(frozen=True)
class Topology:
    """A slice: chips of one kind in a box, e.g. ``v4:2x4x4``."""

    kind: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Read ``KIND:AxB`` or ``KIND:AxBxC``.

        Raises:
            InputError: another form, an unknown chip, the wrong number of axes, or more chips than a pod has.
        """
        match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
        if match is None or match[1] not in CHIPS:
            raise InputError(
                f"topology: got {text!r}, expected a chip ({', '.join(CHIPS)}) and the shape of a slice, e.g. v4:2x4x4 "
                "or v5e:8x8."
            )
        kind, shape = match[1], tuple(int(extent) for extent in match[2].split("x"))
        chip = CHIPS[kind]
        if len(shape) != chip.axes or min(shape) < 1:
            example = "x".join(["4"] * chip.axes)
            raise InputError(f"topology: got {text!r}, expected {chip.axes} extents for {kind}, e.g. {kind}:{example}.")
        if math.prod(shape) > chip.pod:
            raise InputError(f"topology: got {math.prod(shape)} chips, more than the {chip.pod} of a {kind} pod.")
        return cls(kind, shape)

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip:
        """What the slice is made of."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Number of chips, which is the number of devices."""
        return math.prod(self.shape)

    def all_reduce_seconds(self, size: float, group: int) -> float:
        """Return the time of an all-reduce of `size` bytes on each of `group` devices; links idle otherwise.

        Reduce-scatter and all-gather each move the whole array past every device, over all axes at once where all devices
        take part, over one axis else.
        """
        if group <= 1:
            return 0.0
        rates = [self._axis(extent) for extent in self.shape if extent > 1]
        rate = sum(rates) if group == self.chips else min(rates)
        return 2.0 * size * (group - 1) / group / rate

    def all_gather_seconds(self, size: float, group: int) -> float:
        """Return the time to gather (or reduce and scatter) arrays of `size` bytes in all."""
        return 0.5 * self.all_reduce_seconds(size, group)

    def all_to_all_seconds(self, size: float, group: int) -> float:
        """Return the time in which each of `group` neighbours exchanges its `size` bytes with all others.

        Half of what each half of the group holds crosses its middle, over one link in a line and two in a ring.
        """
        if group <= 1:
            return 0.0
        line = max(self.shape)
        links = 2 if group >= line and self._wraps(line) else 1
        return size * group / 4.0 / (links * self.chip.link)

    def devices(self) -> list[Any]:
        """Return the compiler's devices, neighbours side by side; nothing of the kind need be attached.

        Raises:
            InputError: the TPU compiler is not installed, or does not know the slice.
        """
        from jax.experimental import topologies

        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=str(self), chip_config_name=self.chip.configuration
            )
        except Exception as error:  # The plugin raises whatever it met: a missing library, an unknown shape.
            if "libtpu" in str(error) or isinstance(error, ImportError):
                raise InputError(
                    f"{self}: the TPU compiler is missing; install it with `pip install 'spherecast[tpu]'`, or plan for "
                    "host devices with --devices."
                ) from error
            raise InputError(f"{self}: the TPU compiler refuses the slice: {str(error).splitlines()[0]}") from error
        return list(described.devices)

    def _wraps(self, extent: int) -> bool:
        return extent >= self.chip.wraps and extent % self.chip.wraps == 0

    def _axis(self, extent: int) -> float:
        """Bytes/s that a reduction moves along an axis: around a ring in both directions, or along a line and back."""
        return self.chip.link * (2 if self._wraps(extent) else 1)
