"""Reading compiled programs: trip counts, operations, traffic and collectives of programs whose numbers are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from pipeline.planning.hlo import Program

# As the TPU compiler writes loops: no trip count, the limit in the condition or carried in the tuple, layouts with tiles,
# and a body that exchanges. The outer loop runs 4 times, the inner one, downwards by 2 from 9 to 0, 5 times.
TPU_LOOPS = """\
HloModule jit_f, is_scheduled=true

%outer_condition (p.0: (s32[], f32[8,128], s32[])) -> pred[] {
  %p.0 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %i.0 = s32[]{:T(128)} get-tuple-element(%p.0), index=0
  %n.0 = s32[]{:T(128)} get-tuple-element(%p.0), index=2
  ROOT %lt.0 = pred[]{:T(512)} compare(%i.0, %n.0), direction=LT
}

%inner_condition (p.1: (s32[], f32[8,128])) -> pred[] {
  %zero = s32[]{:T(128)} constant(0)
  %p.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %gt.0 = pred[]{:T(512)} compare(%zero, %i.1), direction=LT
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.9 = f32[]{:T(128)} add(%a, %b)
}

%inner_body (p.2: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %two = s32[]{:T(128)} constant(-2)
  %next.2 = s32[]{:T(128)} add(%i.2, %two)
  %x.2 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p.2), index=1
  %exchange = f32[8,128]{1,0:T(8,128)} all-to-all(%x.2), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, \
dimensions={0}, backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %t.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%next.2, %exchange)
}

%outer_body (p.3: (s32[], f32[8,128], s32[])) -> (s32[], f32[8,128], s32[]) {
  %p.3 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:T(128)}) parameter(0)
  %i.3 = s32[]{:T(128)} get-tuple-element(%p.3), index=0
  %one = s32[]{:T(128)} constant(1)
  %next.3 = s32[]{:T(128)} add(%i.3, %one)
  %x.3 = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%p.3), index=1
  %n.3 = s32[]{:T(128)} get-tuple-element(%p.3), index=2
  %nine = s32[]{:T(128)} constant(9)
  %start.3 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%nine, %x.3)
  %inner = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start.3), condition=%inner_condition, body=%inner_body
  %y.3 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%inner), index=1
  %reduced = f32[8,128]{1,0:T(8,128)} all-reduce(%y.3), replica_groups=mesh['data'=4,'sphere'=2] {'data'}, \
use_global_device_ids=true, to_apply=%sum
  ROOT %t.3 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%next.3, %reduced, %n.3)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %begin = s32[]{:T(128)} constant(0)
  %four = s32[]{:T(128)} constant(4)
  %copied = s32[]{:T(128)} copy(%begin)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%copied, %x, %four)
  %outer = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}, /*index=2*/s32[]{:T(128)}) while(%start), \
condition=%outer_condition, body=%outer_body
  %moved = f32[8,128]{1,0:T(8,128)} get-tuple-element(%outer), index=1
  %alone = f32[8,128]{1,0:T(8,128)} all-reduce(%moved), replica_groups={{0},{1}}, to_apply=%sum
  ROOT %all = f32[16,128]{1,0:T(8,128)} all-gather(%alone), replica_groups=[4,2]<=[8], dimensions={0}
}
"""


def test_trip_counts_are_read_from_conditions():
    program = Program.parse(TPU_LOOPS)
    assert program.trip_counts == {"outer": 4, "inner": 5}
    assert program.unknown == []
    assert program.executions["inner_body"] == 20
    assert program.executions["inner_condition"] == 4 * 6


def test_collectives_count_as_often_as_their_loops_run():
    found = {(each.kind, each.group): (each.count, each.size) for each in Program.parse(TPU_LOOPS).collectives()}
    size = 8 * 128 * 4
    # Groups of a single device exchange nothing.
    assert found == {("all-to-all", 4): (20, size), ("all-reduce", 4): (4, size), ("all-gather", 2): (1, 2 * size)}


def test_cycles_are_multiplied_by_trip_counts():
    program = Program.parse(TPU_LOOPS)
    assert (program.cycles(loops=False), program.cycles()) == (10, 200)


def test_loop_without_a_readable_limit_counts_once_and_is_named():
    text = TPU_LOOPS.replace("%four = s32[]{:T(128)} constant(4)", "%four = s32[]{:T(128)} parameter(1)")
    program = Program.parse(text)
    assert program.trip_counts == {"inner": 5}
    assert program.unknown == ["outer"]
    assert program.executions["inner_body"] == 5


def test_trip_count_that_the_compiler_wrote_down_goes_first():
    text = TPU_LOOPS.replace(
        "condition=%inner_condition, body=%inner_body",
        'condition=%inner_condition, body=%inner_body, backend_config={"known_trip_count":{"n":"3"}}',
    )
    assert Program.parse(text).trip_counts == {"outer": 4, "inner": 3}


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="entry computation"):
        Program.parse("module @jit_f {}")


def test_compiled_nested_scan_has_the_operations_of_its_products():
    size, outer, inner = 32, 3, 5

    def body(carry, _):
        return carry @ carry, None

    def run(x):
        def outer_body(carry, _):
            carry, _ = jax.lax.scan(body, carry, None, length=inner)
            return carry, carry

        last, kept = jax.lax.scan(outer_body, x, None, length=outer)
        return last @ last, kept

    compiled = jax.jit(run).lower(jax.ShapeDtypeStruct((size, size), jnp.float32)).compile()
    program = Program.parse(compiled.as_text())
    assert sorted(program.trip_counts.values()) == [outer, inner]
    product = 2.0 * size**3
    assert program.operations() == (outer * inner + 1) * product
    assert program.operations(loops=False) == 2 * product
    assert program.traffic() > program.traffic(loops=False) > 0
    assert program.carried() == outer * size * size * 4


def test_operations_without_loops_agree_with_the_compiler():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 8, 16), (8, 16, 24))]

    def products(a, b):
        return jnp.einsum("mij,mjk->mik", a, b)

    compiled = jax.jit(products).lower(*shapes).compile()
    program = Program.parse(compiled.as_text())
    assert program.operations() == pytest.approx(compiled.cost_analysis()["flops"], rel=0.02)


def test_batched_product_written_as_a_convolution_counts_its_values_only():
    # Batched products of the TPU compiler: the window is as long as the batch, but one tap meets a value.
    text = """\
HloModule jit_f

ENTRY %main (a: f32[6,8,16], b: f32[6,16,32]) -> f32[6,8,32] {
  %a = f32[6,8,16]{2,1,0} parameter(0)
  %b = f32[6,16,32]{2,1,0} parameter(1)
  ROOT %c = f32[6,8,32]{2,1,0} convolution(%a, %b), window={size=6 stride=5 lhs_dilate=6}, dim_labels=0bf_0io->0bf
}
"""
    assert Program.parse(text).operations() == 2.0 * 6 * 8 * 16 * 32
