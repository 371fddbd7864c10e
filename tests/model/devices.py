"""What tests on several host devices share; they run as scripts, in processes of their own."""

from __future__ import annotations

import re


def collectives(program: str) -> list[tuple[str, int]]:
    """Return name and largest array (in elements) of every collective of a compiled program."""
    kinds = "all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute|collective-broadcast"
    found = re.findall(rf"= (\(.*?\)|\S+) ({kinds})(?:-start)?\(", program)

    def size(shape: str) -> int:
        counts = [1]
        for dimensions in re.findall(r"\[([\d,]*)\]", shape):
            count = 1
            for extent in filter(None, dimensions.split(",")):
                count *= int(extent)
            counts.append(count)
        return max(counts)

    return [(kind, size(shape)) for shape, kind in found]
