// subgroup_tile: the inner step of a matrix product in which one subgroup computes a tile of y in registers.
//
// The tile has ROWS = GROUPS LANES rows and PAIRS LANES pairs of columns. A lane loads the inputs of GROUPS rows (its own
// and every LANES-th after it) and the weights of PAIRS pairs of columns; then each lane's inputs are broadcast in turn,
// so that every lane meets every row. A value is loaded once for the whole subgroup: made for drivers that load lane by
// lane, as those that run on a CPU do.

import package::spec::{ElemPair, LANES, PAIRS, ROWS};

// The sums of the tile's row i and a lane's pair j of columns are at i * PAIRS + j.
alias Tile = array<vec2<f32>, ROWS * PAIRS>;

// Adds the products of two neighbouring k to the rows of group g: a lane's input holds both for row g LANES + lane, even and
// odd the weights of the first k and of the second.
fn tile_multiply_add(
    tile: ptr<function, Tile>,
    g: u32,
    input: ElemPair,
    even: array<vec2<f32>, PAIRS>,
    odd: array<vec2<f32>, PAIRS>,
) {
    // unroll
    for (var lane = 0u; lane < LANES; lane++) {
        let both = pair_values(subgroupBroadcast(input, lane));
        // unroll
        for (var j = 0u; j < PAIRS; j++) {
            let sum = fma(vec2(both.x), even[j], (*tile)[(g * LANES + lane) * PAIRS + j]);
            (*tile)[(g * LANES + lane) * PAIRS + j] = fma(vec2(both.y), odd[j], sum);
        }
    }
}
