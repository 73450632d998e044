// group_norm_3_one_pass: for chunk k of an image's pixels and group g of its channels, over the V values x_i of both
//
//   stats[image, k, g] = (mean, square)    mean = sum_i x_i / V    square = sum_i (x_i - mean)^2
//
//   x      (images, PIXELS, C)           f32
//   stats  (images, chunks, GROUPS, 2)   f32   chunks of CHUNK pixels, the last one of fewer
//
// One pass: sum_i (x_i - mean)^2 = sum_i d_i^2 - (sum_i d_i)^2 / V with d_i = x_i - base, for any base.
//
// Grid    one workgroup per (image, chunk, group); its WG lanes stride over the values
// Cost    4 images PIXELS C flop; reads x once at least: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494; Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115
// Twin    crates/ratel-kernels/src/group_norm_stats.rs

import package::lib::grid::workgroup_number;

const WG = 64u;

struct Params { batch: u32, pixels: u32, c: u32, groups: u32, chunk: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;

var<workgroup> partial: array<vec2<f32>, WG>;

// The sum of the lanes' values, given to every lane: halves are added until one is left.
fn sum_of_all(value: vec2<f32>, lane: u32) -> vec2<f32> {
    partial[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if lane < stride { partial[lane] += partial[lane + stride]; }
    }
    let total = workgroupUniformLoad(&partial[0]);
    workgroupBarrier();   // before the next call may overwrite it
    return total;
}

@compute @workgroup_size(WG)
fn group_norm_3_one_pass(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, chunk, group)
    let chunks = (p.pixels + p.chunk - 1u) / p.chunk;
    let g = number % p.groups;
    let k = number / p.groups % chunks;
    let image = number / p.groups / chunks;
    if image >= p.batch { return; }

    let width = p.c / p.groups;   // channels of a group
    let values = min(p.chunk, p.pixels - k * p.chunk) * width;
    let first = (image * p.pixels + k * p.chunk) * p.c + g * width;

    // of differences from one of the values, so that little cancels where the mean is far from zero
    let base = x[first];
    var both = vec2(0.0);   // the differences' sum, and their squares'
    for (var i = lane; i < values; i += WG) {
        let d = x[first + i / width * p.c + i % width] - base;
        both += vec2(d, d * d);
    }
    both = sum_of_all(both, lane);
    if lane == 0u {
        stats[number * 2u] = base + both.x / f32(values);
        stats[number * 2u + 1u] = max(both.y - both.x * both.x / f32(values), 0.0);
    }
}
