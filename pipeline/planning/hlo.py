"""Compiled programs of XLA, read from their text: what is done how often, and how much of it.

XLA's own cost analysis counts the body of a loop once, however often it runs. Here every computation has the number of
times it runs in one call of the program: trip counts come from ``known_trip_count``, where the compiler wrote it down, or
from the loop's condition.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

__all__ = ["Collective", "Instruction", "Program"]

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
)

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
"""Instructions that move nothing."""

_CONTROL = {"while", "call", "conditional", "async-start", "async-update", "async-done"}
"""Instructions whose work is that of the computations they call."""

_UNMOVED = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")
"""Calls of the TPU compiler that only name memory."""

_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(condition|body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        type: shape of the result, as written.
        operands: names of other instructions of the computation.
        rest: everything after the operands.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    literal: str = ""
    root: bool = False

    @cached_property
    def shapes(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """(type, extents, whether it lies in a memory on the chip itself) of each array of the result."""
        return [
            (kind, tuple(int(n) for n in extents.split(",") if n), "S(" in (layout or ""))
            for kind, extents, layout in _SHAPE.findall(self.type)
        ]

    @property
    def size(self) -> int:
        """Bytes of the result, without padding of tiles."""
        return sum(_bytes(kind, extents) for kind, extents, _ in self.shapes)

    @property
    def external(self) -> int:
        """Bytes of the result in the device's main memory."""
        return sum(_bytes(kind, extents) for kind, extents, fast in self.shapes if not fast)

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of `pattern` in the attributes."""
        found = re.search(pattern, self.rest)
        return found[1] if found else None

    @property
    def called(self) -> dict[str, list[str]]:
        """Names of computations by the role in which they are called."""
        roles: dict[str, list[str]] = defaultdict(list)
        for role, name in _CALLED.findall(self.rest):
            roles[role].append(name)
        for names in _BRANCHES.findall(self.rest):
            roles["branch"] += [name.strip().lstrip("%") for name in names.split(",") if name.strip()]
        return roles


@dataclass(frozen=True)
class Collective:
    """Exchanges of one kind and size.

    Attributes:
        kind: e.g. ``all-to-all``.
        count: executions in one call of the program.
        size: bytes that each device holds of the result of one (of all gathered parts, or of all parts to be scattered).
        group: devices that take part in one exchange.
    """

    kind: str
    count: float
    size: int
    group: int


@dataclass
class Program:
    """A parsed program.

    Attributes:
        computations: instructions by name, by computation.
        entry: name of the computation that is called.
        unknown: loops whose trip count could not be read; their bodies count once.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read the text of a compiled program (``jax.stages.Compiled.as_text``).

        Raises:
            ValueError: it has no entry computation.
        """
        computations: dict[str, dict[str, Instruction]] = {}
        entry, current = None, None
        for line in text.splitlines():
            if line[:1] not in (" ", "}", "") and line.rstrip().endswith("{"):
                match = re.match(r"(ENTRY\s+)?%?([\w.\-]+)\s*\(", line)
                if match:
                    current = computations.setdefault(match[2], {})
                    entry = match[2] if match[1] else entry
            elif line.startswith("}"):
                current = None
            elif current is not None and " = " in line:
                instruction = _instruction(line.strip())
                current[instruction.name] = instruction
        if entry is None:
            raise ValueError(
                "program: expected the text of a compiled HLO module, got one without an entry computation"
            )
        return cls(computations, entry)

    @cached_property
    def trip_counts(self) -> dict[str, int]:
        """Trip count of every loop that runs a known number of times, by the loop's name."""
        counts = {}
        for computation in self.computations.values():
            for instruction in computation.values():
                if instruction.opcode == "while":
                    count = self._trip_count(instruction, computation)
                    if count is None:
                        self.unknown.append(instruction.name)
                    else:
                        counts[instruction.name] = count
        return counts

    @cached_property
    def executions(self) -> dict[str, float]:
        """How often each computation runs in one call; those within fusions and reductions run with their instruction."""
        return self._count(loops=True)

    def _count(self, *, loops: bool) -> dict[str, float]:
        counts: dict[str, float] = defaultdict(float)

        def visit(name: str, times: float) -> None:
            counts[name] += times
            for instruction in self.computations[name].values():
                trips = self.trip_counts.get(instruction.name, 1) if loops and instruction.opcode == "while" else 1
                for role, names in instruction.called.items():
                    factor = trips + loops if role == "condition" else trips
                    for called in names:
                        if called in self.computations:
                            visit(called, times * factor)

        visit(self.entry, 1.0)
        return dict(counts)

    @cached_property
    def _top_level(self) -> set[str]:
        """Computations whose instructions are run one by one, not as part of a fusion or a reduction."""
        found: set[str] = set()

        def visit(name: str) -> None:
            if name in found:
                return
            found.add(name)
            for instruction in self.computations[name].values():
                if instruction.opcode in _CONTROL:
                    for names in instruction.called.values():
                        for called in names:
                            if called in self.computations:
                                visit(called)

        visit(self.entry)
        return found

    def collectives(self) -> list[Collective]:
        """Return all exchanges between devices, those of one kind, size and group together."""
        found: dict[tuple[str, int, int], float] = defaultdict(float)
        for name, times in self.executions.items():
            for instruction in self.computations[name].values():
                kind = instruction.opcode.removesuffix("-start")
                if kind not in _COLLECTIVES:
                    continue
                sizes = [_bytes(element, extents) for element, extents, _ in instruction.shapes]
                pairs = instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute")
                size = max(sizes) if pairs else sum(sizes)
                group = _group_size(instruction)
                if group == 1:
                    continue
                size *= group if kind == "reduce-scatter" else 1
                found[kind, size, group] += times
        return [Collective(kind, count, size, group) for (kind, size, group), count in sorted(found.items())]

    def operations(self, *, loops: bool = True) -> float:
        """Return the multiplications and additions of all products, convolutions included.

        Args:
            loops: count bodies as often as they run, not once.
        """
        total = 0.0
        for name, times in (self.executions if loops else self._count(loops=False)).items():
            computation = self.computations[name]
            for instruction in computation.values():
                if instruction.opcode == "dot":
                    total += times * _dot_operations(instruction, computation)
                elif instruction.opcode == "convolution":
                    total += times * _convolution_operations(instruction, computation)
        return total

    def traffic(self, *, loops: bool = True) -> float:
        """Return the bytes that instructions read from and write to main memory; a fusion counts as one instruction.

        Of an array that is only sliced, or updated in place, only the slice counts.
        """
        total = 0.0
        counts = self.executions if loops else self._count(loops=False)
        for name in self._top_level:
            computation = self.computations[name]
            moved = sum(self._moved(i, computation) for i in computation.values())
            total += counts[name] * moved
        return total

    def cycles(self, *, loops: bool = True) -> float | None:
        """Return the compiler's estimate of all instructions' cycles, or None where it wrote none."""
        total, given = 0.0, False
        counts = self.executions if loops else self._count(loops=False)
        for name in self._top_level:
            for instruction in self.computations[name].values():
                cycles = instruction.attribute(r'"estimated_cycles":"(\d+)"')
                if cycles is not None:
                    given = True
                    total += counts[name] * int(cycles)
        return total if given else None

    def carried(self) -> int:
        """Return the bytes of arrays that loops fill step by step and hand on: what a backward pass keeps of a rollout.

        The largest set of any loop: arrays with one entry for each trip.
        """
        loops = (i for name in self._top_level for i in self.computations[name].values() if i.opcode == "while")
        sets = ((self.trip_counts.get(loop.name, 1), loop.shapes) for loop in loops)
        return max(
            (
                sum(_bytes(kind, extents) for kind, extents, _ in shapes if extents and extents[0] == trips)
                for trips, shapes in sets
                if trips > 1
            ),
            default=0,
        )

    def _trip_count(self, loop: Instruction, computation: dict[str, Instruction]) -> int | None:
        known = loop.attribute(r'"?known_trip_count"?[=:]\s*\{"?n"?[=:]"?(\d+)')
        if known is not None:
            return int(known)
        (body,), (condition,) = loop.called["body"], loop.called["condition"]
        test = self._resolved_root(self.computations[condition])
        if test is None:
            return None
        index, limit, direction = test
        start = self._initial(loop, computation, index)
        last = limit if isinstance(limit, int) else self._initial(loop, computation, limit[0])
        step = self._step(self.computations[body], index)
        if start is None or last is None or not step:
            return None
        span = {"LT": last - start, "LE": last - start + 1, "GT": start - last, "GE": start - last + 1}.get(direction)
        return None if span is None else max(0, math.ceil(span / abs(step)))

    def _resolved_root(self, condition: dict[str, Instruction]) -> tuple[int, int | tuple[int], str] | None:
        """Return (index of the counter, limit or (its index,), direction) of a condition ``counter < limit``."""
        root = next((i for i in condition.values() if i.root), None)
        scope, arguments = condition, {}
        if root is not None and root.opcode in ("fusion", "call"):
            (name,) = itertools.chain(*(root.called[role] for role in ("calls", "to_apply")))
            scope = self.computations[name]
            arguments = {i.name: root.operands[int(i.literal)] for i in scope.values() if i.opcode == "parameter"}
            root = next((i for i in scope.values() if i.root), None)
        if root is None or root.opcode != "compare":
            return None

        def value(name: str) -> int | tuple[int] | None:
            instruction = scope.get(name)
            if instruction is not None and name in arguments:
                instruction = condition.get(arguments[name])
            while instruction is not None and instruction.opcode in ("copy", "convert", "bitcast"):
                instruction = condition.get(instruction.operands[0], scope.get(instruction.operands[0]))
            if instruction is None:
                return None
            if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal):
                return int(instruction.literal)
            index = instruction.attribute(r"index=(\d+)")
            return (int(index),) if instruction.opcode == "get-tuple-element" and index is not None else None

        direction = root.attribute(r"direction=(\w+)")
        left, right = (value(name) for name in root.operands)
        if isinstance(left, int) and isinstance(right, tuple):
            mirrored = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE"}
            left, right, direction = right, left, mirrored.get(direction) if direction else None
        if not isinstance(left, tuple) or right is None or direction is None:
            return None
        return left[0], right, direction

    def _initial(self, loop: Instruction, computation: dict[str, Instruction], index: int) -> int | None:
        """Return the constant that a loop starts with at a place of its tuple."""
        start = computation.get(loop.operands[0])
        if start is None or start.opcode != "tuple" or index >= len(start.operands):
            return None
        instruction = computation.get(start.operands[index])
        while instruction is not None and instruction.opcode in ("copy", "convert", "bitcast"):
            instruction = computation.get(instruction.operands[0])
        if instruction is None or instruction.opcode != "constant":
            return None
        return int(instruction.literal) if re.fullmatch(r"-?\d+", instruction.literal) else None

    def _step(self, body: dict[str, Instruction], index: int) -> int | None:
        """Return by how much a loop's body changes its counter; 1 where the sum is hidden within a fusion."""
        root = next((i for i in body.values() if i.root), None)
        if root is None or root.opcode != "tuple":
            return 1
        instruction = body.get(root.operands[index])
        while instruction is not None and instruction.opcode in ("copy", "bitcast"):
            instruction = body.get(instruction.operands[0])
        if instruction is None or instruction.opcode not in ("add", "subtract"):
            return 1
        for name in instruction.operands:
            operand = body.get(name)
            while operand is not None and operand.opcode == "copy":
                operand = body.get(operand.operands[0])
            if operand is not None and operand.opcode == "constant" and re.fullmatch(r"-?\d+", operand.literal):
                return int(operand.literal)
        return 1

    def _moved(self, instruction: Instruction, computation: dict[str, Instruction]) -> int:
        if instruction.opcode in _FREE or instruction.opcode in _CONTROL or instruction.opcode.endswith("-done"):
            return 0
        if instruction.attribute(r'custom_call_target="(\w+)"') in _UNMOVED:
            return 0
        inputs = [computation[name] for name in instruction.operands if name in computation]
        if instruction.opcode in ("copy-start", "slice-start"):
            # The result lists source, target and a counter.
            kind, extents, fast = instruction.shapes[1]
            size, source = _bytes(kind, extents), inputs[0]
            return size * (not fast) + min(size, source.external)
        if instruction.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * instruction.external
        if instruction.opcode == "dynamic-update-slice":
            return 2 * inputs[1].external if len(inputs) > 1 else 0
        if instruction.opcode != "fusion":
            return instruction.external + sum(i.external for i in inputs)
        fused = self.computations.get(next(iter(instruction.called["calls"]), ""), {})
        read = sum(_read(i, place, fused) for place, i in enumerate(inputs))
        return read + _written(instruction, fused)


def _read(operand: Instruction, place: int, fused: dict[str, Instruction]) -> int:
    """Return the bytes that a fusion reads of an operand."""
    parameter = next((i for i in fused.values() if i.opcode == "parameter" and i.literal == str(place)), None)
    if parameter is None or not operand.external:
        return operand.external
    users = [i for i in fused.values() if parameter.name in i.operands]
    if users and all(i.opcode in ("dynamic-slice", "slice") for i in users):
        return min(operand.external, sum(i.size for i in users))
    if users and all(i.opcode == "dynamic-update-slice" and i.operands[0] == parameter.name for i in users):
        return 0
    return operand.external


def _written(fusion: Instruction, fused: dict[str, Instruction]) -> int:
    """Return the bytes that a fusion writes: of an array updated in place, the update."""
    root = next((i for i in fused.values() if i.root), None)
    while root is not None and root.opcode in ("bitcast", "copy"):
        root = fused.get(root.operands[0])
    if root is not None and root.opcode == "dynamic-update-slice" and root.operands[1] in fused:
        return min(fusion.external, fused[root.operands[1]].size)
    return fusion.external


def _instruction(line: str) -> Instruction:
    """Read ``[ROOT] %name = type opcode(operands), attributes``."""
    root = line.startswith("ROOT ")
    name, _, right = line.removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.find(" ")
    kind, right = right[:end], right[end:].lstrip()
    opening = right.find("(")
    closing = _closing(right, opening)
    inside = right[opening + 1 : closing]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name.lstrip("%"), kind, right[:opening], operands, right[closing + 1 :], inside.strip(), root)


def _closing(text: str, opening: int) -> int:
    """Return where the bracket opened at `opening` is closed."""
    depth = 0
    for match in re.finditer(r"[()]", text[opening:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return opening + match.start()
    return len(text)


def _bytes(kind: str, extents: tuple[int, ...]) -> int:
    digits = re.fullmatch(r"[su](\d+)", kind)
    bits = _BITS.get(kind, int(digits[1]) if digits else 8 if kind.startswith("f8") else 0)
    return math.prod(extents) * bits // 8


def _group_size(instruction: Instruction) -> int:
    """Return how many devices take part in one exchange, from any of the forms in which groups are written."""
    if listed := instruction.attribute(r"replica_groups=\{\{([\d,]*)\}"):
        return listed.count(",") + 1
    if shape := instruction.attribute(r"replica_groups=\[([\d,]+)\]<="):
        return int(shape.split(",")[-1])
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", instruction.rest):
        extents = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        return math.prod(int(extents[axis]) for axis in re.findall(r"'(\w+)'", axes[2]))
    if pairs := instruction.attribute(r"source_target_pairs=\{(.*?)\}\}"):
        return pairs.count("{")
    return 1


def _extents(name: str, computation: dict[str, Instruction]) -> tuple[int, ...]:
    return computation[name].shapes[0][1]


def _dot_operations(instruction: Instruction, computation: dict[str, Instruction]) -> float:
    left = _extents(instruction.operands[0], computation)
    contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    length = math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * math.prod(instruction.shapes[0][1]) * length


def _convolution_operations(instruction: Instruction, computation: dict[str, Instruction]) -> float:
    """Count as XLA does: only taps that meet a value of the input, not padding or the holes of a dilation.

    On TPUs batched products are convolutions over the batch with a window as long as it, of which one tap meets a value.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    inputs, kernel = (_extents(name, computation) for name in instruction.operands[:2])
    output = instruction.shapes[0][1]
    if labels is None:
        return 2.0 * math.prod(output)
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", instruction.attribute(r"window=\{([^}]*)\}") or ""))
    spatial = sorted(label for label in labels[1] if label.isdigit())

    def option(name: str, axis: int, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    taps = 1.0
    for axis, label in enumerate(spatial):
        steps, size = output[labels[3].index(label)], kernel[labels[2].index(label)]
        length = inputs[labels[1].index(label)]
        low = int(option("pad", axis, "0_0").split("_")[0])
        stride, spread, holes = (int(option(name, axis, "1")) for name in ("stride", "rhs_dilate", "lhs_dilate"))
        place = np.arange(steps)[:, None] * stride + np.arange(size) * spread - low
        taps *= np.count_nonzero((place % holes == 0) & (place >= 0) & (place // holes < length))
    rows, columns = output[labels[3].index("b")], output[labels[3].index("f")]
    return 2.0 * rows * columns * kernel[labels[2].index("i")] * taps
