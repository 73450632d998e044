// group_norm_columns: y = act( gamma[c] (x - mean) / sqrt(square / V + eps) + beta[c] )
//
//   x      (images, ROWS, C1 / 4)         Elem4   x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, ROWS, (C - C1) / 4)   Elem4   channel c - C1 of x2 beyond, when there is one
//   stats  (images, chunks, GROUPS, 2)    f32     (mean, square) of each chunk of CHUNK pixels, from group_norm_stats
//   gamma  (C)                            f32
//   beta   (C)                            f32
//   y      (images, ROWS, C / 4)          Elem4   ROWS of an image's PIXELS
//
// mean and square are those of the V = PIXELS C / GROUPS values of a group of an image. Chunks k of n_k values merge
// without cancellation: mean = sum_k n_k mean_k / V, square = sum_k square_k + n_k (mean_k - mean)^2. The mean is kept
// as a base and a small rest, which holds it to more digits than one f32. Then a lane keeps to four channels, a column,
// and goes down every STEP-th pixel of the block.
//
// Grid    one workgroup per (image, BLOCK pixels, block of COLUMNS columns), which holds whole groups; of its WG lanes
//         STEP COLUMNS are used, side by side along the channels
// Cost    5 images ROWS C flop; reads x and x2 once, writes y once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; Chan, Golub & LeVeque 1979 for the merging
// Twin    crates/ratel-kernels/src/group_norm.rs

import package::spec::{Elem4};
import package::lib::act::act4;
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override COLUMNS: u32 = 16u;
override STEP: u32 = 4u;
override BLOCK: u32 = 256u;
override ACT: u32 = 0u;

struct Params { batch: u32, rows: u32, pixels: u32, c: u32, c1: u32, groups: u32, chunk: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> x2: array<Elem4>;
@group(0) @binding(2) var<storage, read> stats: array<f32>;
@group(0) @binding(3) var<storage, read> gamma: array<f32>;
@group(0) @binding(4) var<storage, read> beta: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<Elem4>;

var<workgroup> partial: array<f32, WG>;
// of each group of the block, of which there are at most 4 COLUMNS
var<workgroup> bases: array<f32, 4u * COLUMNS>;
var<workgroup> means: array<f32, 4u * COLUMNS>;    // less the base
var<workgroup> scales: array<f32, 4u * COLUMNS>;

@compute @workgroup_size(WG)
fn group_norm_columns(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, block of pixels, block of columns)
    let blocks = (p.rows + BLOCK - 1u) / BLOCK;
    let column_blocks = p.c / 4u / COLUMNS;
    let column_block = number % column_blocks;
    let block = number / column_blocks % blocks;
    let image = number / column_blocks / blocks;
    if image >= p.batch { return; }

    let width = p.c / p.groups;                 // channels of a group
    let groups = 4u * COLUMNS / width;          // groups of the block
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let first_chunk = image * chunks * p.groups + column_block * groups;
    let values = f32(p.pixels * width);

    // `team` lanes merge the chunks of one group
    let team = max(WG / groups, 1u);
    let member = lane % team;
    for (var first_group = 0u; first_group < groups; first_group += WG / team) {
        let g = min(first_group + lane / team, groups - 1u);
        let serves = lane / team < WG / team && first_group + lane / team < groups;
        let base = stats[(first_chunk + g) * 2u];
        var sum = 0.0;
        for (var k = member; k < chunks; k += team) {
            let n = f32(min(p.chunk, p.pixels - k * p.chunk) * width);
            sum += n * (stats[(first_chunk + k * p.groups + g) * 2u] - base);
        }
        partial[lane] = sum;
        workgroupBarrier();
        var mean = 0.0;
        for (var i = 0u; i < team; i++) { mean += partial[min(lane - member + i, WG - 1u)]; }
        mean /= values;
        workgroupBarrier();
        sum = 0.0;
        for (var k = member; k < chunks; k += team) {
            let n = f32(min(p.chunk, p.pixels - k * p.chunk) * width);
            let d = stats[(first_chunk + k * p.groups + g) * 2u] - base - mean;
            sum += stats[(first_chunk + k * p.groups + g) * 2u + 1u] + n * d * d;
        }
        partial[lane] = sum;
        workgroupBarrier();
        if serves && member == 0u {
            var square = 0.0;
            for (var i = 0u; i < team; i++) { square += partial[lane + i]; }
            bases[g] = base;
            means[g] = mean;
            scales[g] = 1.0 / sqrt(square / values + p.eps);
        }
        workgroupBarrier();
    }

    let row = lane / COLUMNS;
    if row >= STEP { return; }
    let in_block = lane % COLUMNS;
    let column = column_block * COLUMNS + in_block;
    var base: vec4<f32>;
    var mean: vec4<f32>;
    var scale: vec4<f32>;
    var shift: vec4<f32>;
    // unroll
    for (var i = 0u; i < 4u; i++) {
        let g = (4u * in_block + i) / width;
        base[i] = bases[g];
        mean[i] = means[g];
        scale[i] = scales[g] * gamma[4u * column + i];
        shift[i] = beta[4u * column + i];
    }
    let first_pixel = image * p.rows + block * BLOCK;
    let rows = min(BLOCK, p.rows - block * BLOCK);
    if column < p.c1 / 4u {
        for (var i = row; i < rows; i += STEP) {
            let value = vec4<f32>(x[(first_pixel + i) * (p.c1 / 4u) + column]);
            y[(first_pixel + i) * (p.c / 4u) + column] = Elem4(act4(ACT, (value - base - mean) * scale + shift));
        }
    } else {
        let pitch = (p.c - p.c1) / 4u;
        let from_x2 = column - p.c1 / 4u;
        for (var i = row; i < rows; i += STEP) {
            let value = vec4<f32>(x2[(first_pixel + i) * pitch + from_x2]);
            y[(first_pixel + i) * (p.c / 4u) + column] = Elem4(act4(ACT, (value - base - mean) * scale + shift));
        }
    }
}
