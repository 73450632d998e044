// cooperative_tile: the inner step of a matrix product in which the subgroups of a workgroup compute a block of y with
// cooperative matrices, from workgroup memory.
//
// The block has BLOCK_ROWS rows and BLOCK_QUADS quads of columns (a quad is four neighbours). Subgroups lie
// SUBGROUP_COLUMNS side by side; each holds the sums of ROWS by COLUMNS fragments of EDGE by EDGE in its registers. A
// fragment can be loaded, multiplied and stored only whole, so sums return through workgroup memory, one fragment of
// each subgroup at a time. All subgroups go through the same barriers; none of this is under a branch on the subgroup.

import package::spec::{FragmentA, FragmentB, FragmentSum, BLOCK_QUADS, BLOCK_ROWS, COLUMNS, EDGE, GATES, ROWS, STAGES};
import package::spec::{STEPS, SUBGROUPS, SUBGROUP_COLUMNS};

const STEP = 8u;                        // quads of k in workgroup memory at a time
const EDGE_QUADS = EDGE / 4u;
const FRAGMENT_QUADS = EDGE * EDGE_QUADS;
const INPUT_PITCH = STEP + 2u;          // of rows in memory; longer than a row, so that rows meet different banks
const WEIGHT_PITCH = BLOCK_QUADS + 2u;

var<workgroup> block_inputs: array<vec4<f16>, STAGES * BLOCK_ROWS * INPUT_PITCH>;    // (stage, row, quad of k)
var<workgroup> block_weights: array<vec4<f16>, STAGES * 4u * STEP * WEIGHT_PITCH>;   // (stage, k, quad of columns)
var<workgroup> block_sums: array<vec4<f32>, GATES * SUBGROUPS * FRAGMENT_QUADS>;     // (gate, subgroup, row, quad)

// The sums of a subgroup's fragment in row i and column j are at i * COLUMNS + j.
alias Tile = array<FragmentSum, ROWS * COLUMNS>;

// The first row, and the first quad of columns, of a subgroup's sums in the block.
fn subgroup_row(subgroup: u32) -> u32 {
    return subgroup / SUBGROUP_COLUMNS * (ROWS * EDGE);
}

fn subgroup_quad(subgroup: u32) -> u32 {
    return subgroup % SUBGROUP_COLUMNS * (COLUMNS * EDGE_QUADS);
}

// Puts quad number i of a step's inputs, or of its weights, where block_multiply_add looks for it.
fn stage_input(stage: u32, i: u32, quad: vec4<f16>) {
    block_inputs[(stage * BLOCK_ROWS + i / STEP) * INPUT_PITCH + i % STEP] = quad;
}

fn stage_weight(stage: u32, i: u32, quad: vec4<f16>) {
    block_weights[(stage * 4u * STEP + i / BLOCK_QUADS) * WEIGHT_PITCH + i % BLOCK_QUADS] = quad;
}

// Adds the products of the step's 32 k.
fn block_multiply_add(tile: ptr<function, Tile>, stage: u32, subgroup: u32) {
    let input = (stage * BLOCK_ROWS + subgroup_row(subgroup)) * INPUT_PITCH;
    let weight = stage * 4u * STEP * WEIGHT_PITCH + subgroup_quad(subgroup);
    // unroll
    for (var k = 0u; k < STEPS; k++) {
        var inputs: array<FragmentA, ROWS>;
        // unroll
        for (var i = 0u; i < ROWS; i++) {
            let at = input + i * EDGE * INPUT_PITCH + k * EDGE_QUADS;
            inputs[i] = coopLoadT<FragmentA>(&block_inputs[at], INPUT_PITCH);
        }
        // unroll
        for (var j = 0u; j < COLUMNS; j++) {
            let at = weight + k * EDGE * WEIGHT_PITCH + j * EDGE_QUADS;
            let weights = coopLoadT<FragmentB>(&block_weights[at], WEIGHT_PITCH);
            // unroll
            for (var i = 0u; i < ROWS; i++) {
                (*tile)[i * COLUMNS + j] = coopMultiplyAdd(inputs[i], weights, (*tile)[i * COLUMNS + j]);
            }
        }
    }
}

// The row of the block, and the quad of y's columns, that quad number i of block_sums belongs to, when every subgroup has
// put its fragment (0, 0) there. With gates, half of a subgroup's columns are y's.
fn sum_row(i: u32) -> u32 {
    return subgroup_row(i / FRAGMENT_QUADS) + i % FRAGMENT_QUADS / EDGE_QUADS;
}

fn sum_quad(i: u32) -> u32 {
    return subgroup_quad(i / FRAGMENT_QUADS) / GATES + i % EDGE_QUADS;
}
