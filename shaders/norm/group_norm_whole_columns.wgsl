// group_norm_whole_columns: y = act( gamma[c] (x - mean) / sqrt(variance + eps) + beta[c] ), in one read
//
//   x      (images, PIXELS, C1 / 4)         Elem4       x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, PIXELS, (C - C1) / 4)   Elem4       channel c - C1 of x2 beyond, when there is one
//   gamma  (C / 4)                          vec4<f32>
//   beta   (C / 4)                          vec4<f32>
//   y      (images, PIXELS, C / 4)          Elem4
//
// mean and variance are those of the values of a group of an image: PIXELS rows of 4 COLUMNS = C / GROUPS channels. All of
// them fit in workgroup memory: there the second sum and the result find them. Sums are of differences, from the group's
// first value and then from the mean, so that nothing cancels however far from zero the values lie. A lane keeps to four
// channels, a column, and goes down every STEP-th pixel.
//
// Grid    one workgroup per (image, group); of its WG lanes STEP COLUMNS are used, side by side along the channels
// Cost    9 images PIXELS C flop; reads x and x2 once, writes y once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494
// Twin    crates/ratel-kernels/src/group_norm_whole.rs

import package::spec::{Elem4};
import package::lib::act::act4;
import package::lib::grid::workgroup_number;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;
override COLUMNS: u32 = 1u;
override STEP: u32 = 64u;
override VALUES: u32 = 64u;   // PIXELS COLUMNS
override ACT: u32 = 0u;

struct Params { batch: u32, pixels: u32, c: u32, c1: u32, groups: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem4>;
@group(0) @binding(1) var<storage, read> x2: array<Elem4>;
@group(0) @binding(2) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<Elem4>;

var<workgroup> values: array<Elem4, VALUES>;   // a lane reads what it wrote itself, so no barrier is needed

fn input(pixel: u32, column: u32) -> Elem4 {
    if column < p.c1 / 4u { return x[pixel * (p.c1 / 4u) + column]; }
    return x2[pixel * ((p.c - p.c1) / 4u) + column - p.c1 / 4u];
}

@compute @workgroup_size(WG)
fn group_norm_whole_columns(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, group)
    let image = number / p.groups;
    if image >= p.batch { return; }
    let first_column = number % p.groups * COLUMNS;
    let across = lane % COLUMNS;
    let column = first_column + across;
    // lanes beyond the last whole row have no pixel
    let row = select(lane / COLUMNS, p.pixels, lane >= STEP * COLUMNS);
    let first_pixel = image * p.pixels;

    let base = f32(input(first_pixel, first_column).x);
    var sum = vec4(0.0);
    for (var i = row; i < p.pixels; i += STEP) {
        let value = input(first_pixel + i, column);
        values[i * COLUMNS + across] = value;
        sum += vec4<f32>(value) - base;
    }
    // the mean stays in two parts, which hold it to more digits than one f32
    let count = f32(4u * VALUES);
    let mean = workgroup_sum(sum.x + sum.y + sum.z + sum.w, lane) / count;

    sum = vec4(0.0);
    for (var i = row; i < p.pixels; i += STEP) {
        let d = vec4<f32>(values[i * COLUMNS + across]) - base - mean;
        sum += d * d;
    }
    let variance = workgroup_sum(sum.x + sum.y + sum.z + sum.w, lane) / count;

    let scale = gamma[column] / sqrt(variance + p.eps);
    let shift = beta[column];
    for (var i = row; i < p.pixels; i += STEP) {
        let normal = (vec4<f32>(values[i * COLUMNS + across]) - base - mean) * scale + shift;
        y[(first_pixel + i) * (p.c / 4u) + column] = Elem4(act4(ACT, normal));
    }
}
