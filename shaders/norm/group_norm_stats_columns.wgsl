// group_norm_stats_columns: for chunk k of an image's pixels and group g of its channels, over the V values x_i of both
//
//   stats[image, k, g] = (mean, square)    mean = sum_i x_i / V    square = sum_i (x_i - mean)^2
//
//   x      (images, PIXELS, C1 / 4)          Elem4   x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, PIXELS, (C - C1) / 4)    Elem4   channel c - C1 of x2 beyond, when there is one
//   stats  (images, chunks, GROUPS, 2)       f32     chunks of CHUNK pixels, the last one of fewer
//
// One pass. A lane keeps to four channels, a column, and goes down every ROWS-th pixel of the chunk, summing differences
// from its first value and their squares: that value is one of those it sums, so nothing cancels however far the mean
// lies from zero. Then the lanes' means and squares merge into those of the groups.
//
// Grid    one workgroup per (image, chunk, block of COLUMNS columns), which holds whole groups; of its WG lanes
//         ROWS COLUMNS are used, side by side along the channels
// Cost    4 images PIXELS C flop; reads x and x2 once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; Chan, Golub & LeVeque 1979 for the merging
// Twin    crates/ratel-kernels/src/group_norm_stats.rs

import package::spec::{Elem4};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;
override COLUMNS: u32 = 16u;
override ROWS: u32 = 4u;

struct Params { batch: u32, pixels: u32, c: u32, c1: u32, groups: u32, chunk: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> x2: array<Elem4>;
@group(0) @binding(2) var<storage, read_write> stats: array<f32>;

// of each lane's four channels, a lane's four numbers side by side
var<workgroup> means: array<f32, 4u * WG>;
var<workgroup> squares: array<f32, 4u * WG>;

@compute @workgroup_size(WG)
fn group_norm_stats_columns(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, chunk, block of columns)
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let blocks = p.c / 4u / COLUMNS;
    let block = number % blocks;
    let k = number / blocks % chunks;
    let image = number / blocks / chunks;
    if image >= p.batch { return; }

    let rows = min(p.chunk, p.pixels - k * p.chunk);   // pixels of the chunk
    let first_pixel = image * p.pixels + k * p.chunk;
    let column = block * COLUMNS + lane % COLUMNS;
    let row = lane / COLUMNS;
    var base = vec4(0.0);
    var sum = vec4(0.0);
    var square = vec4(0.0);
    if row < ROWS && row < rows {
        if column < p.c1 / 4u {
            let pitch = p.c1 / 4u;
            base = vec4<f32>(x[(first_pixel + row) * pitch + column]);
            for (var i = row; i < rows; i += ROWS) {
                let d = vec4<f32>(x[(first_pixel + i) * pitch + column]) - base;
                sum += d;
                square += d * d;
            }
        } else {
            let pitch = (p.c - p.c1) / 4u;
            let from_x2 = column - p.c1 / 4u;
            base = vec4<f32>(x2[(first_pixel + row) * pitch + from_x2]);
            for (var i = row; i < rows; i += ROWS) {
                let d = vec4<f32>(x2[(first_pixel + i) * pitch + from_x2]) - base;
                sum += d;
                square += d * d;
            }
        }
        let n = f32((rows - row + ROWS - 1u) / ROWS);
        square = max(square - sum * sum / n, vec4(0.0));
        sum = base + sum / n;
    }
    // unroll
    for (var i = 0u; i < 4u; i++) {
        means[4u * lane + i] = sum[i];
        squares[4u * lane + i] = square[i];
    }
    workgroupBarrier();

    // group g of the block: the ROWS lanes above each other in each of its channels merge
    let width = p.c / p.groups;
    let used = min(ROWS, rows);
    for (var g = lane; g < 4u * COLUMNS / width; g += WG) {
        let reference = means[g * width];
        var total = 0.0;
        for (var r = 0u; r < used; r++) {
            let n = f32((rows - r + ROWS - 1u) / ROWS);
            for (var c = g * width; c < (g + 1u) * width; c++) {
                total += n * (means[4u * r * COLUMNS + c] - reference);
            }
        }
        let mean = total / f32(rows * width);   // less the reference
        total = 0.0;
        for (var r = 0u; r < used; r++) {
            let n = f32((rows - r + ROWS - 1u) / ROWS);
            for (var c = g * width; c < (g + 1u) * width; c++) {
                let d = means[4u * r * COLUMNS + c] - reference - mean;
                total += squares[4u * r * COLUMNS + c] + n * d * d;
            }
        }
        let at = ((image * chunks + k) * p.groups + block * (4u * COLUMNS / width) + g) * 2u;
        stats[at] = reference + mean;
        stats[at + 1u] = total;
    }
}
