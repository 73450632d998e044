// block_tile: the inner step of a matrix product in which one workgroup computes a block of y, from workgroup memory.
//
// The block has BLOCK_ROWS = ROWS WG_ROWS rows and BLOCK_QUADS = QUADS WG_QUADS quads of columns (a quad is four
// neighbours). An invocation holds ROWS by QUADS sums in registers, WG_ROWS rows and WG_QUADS quads apart, so that
// neighbouring invocations read neighbouring quads and all of a row's read the same inputs.

import package::spec::{BLOCK_QUADS, BLOCK_ROWS, QUADS, ROWS, WG_QUADS, WG_ROWS};

const STEP = 4u;    // quads of k in workgroup memory at a time

var<workgroup> block_inputs: array<vec4<f32>, BLOCK_ROWS * STEP>;          // (row, quad of k)
var<workgroup> block_weights: array<vec4<f32>, 4u * STEP * BLOCK_QUADS>;   // (k, quad of columns)

// The sums of an invocation's row i and quad j are at i * QUADS + j.
alias Tile = array<vec4<f32>, ROWS * QUADS>;

// Adds the products of the step's 16 k for the invocation in row `row` and column `quad` of the workgroup.
fn block_multiply_add(tile: ptr<function, Tile>, row: u32, quad: u32) {
    for (var k = 0u; k < STEP; k++) {
        var inputs: array<vec4<f32>, ROWS>;
        // unroll
        for (var i = 0u; i < ROWS; i++) {
            inputs[i] = block_inputs[(row + i * WG_ROWS) * STEP + k];
        }
        // unroll
        for (var part = 0u; part < 4u; part++) {
            // unroll
            for (var j = 0u; j < QUADS; j++) {
                let weights = block_weights[(k * 4u + part) * BLOCK_QUADS + quad + j * WG_QUADS];
                // unroll
                for (var i = 0u; i < ROWS; i++) {
                    (*tile)[i * QUADS + j] = fma(vec4(inputs[i][part]), weights, (*tile)[i * QUADS + j]);
                }
            }
        }
    }
}
