// group_norm_whole: y = act( gamma[c] (x - mean) / sqrt(variance + eps) + beta[c] ), in one read
//
//   x      (images, PIXELS, C1)       Elem   x and x2 side by side are the input: channel c of x for c < C1,
//   x2     (images, PIXELS, C - C1)   Elem   channel c - C1 of x2 beyond, when there is one
//   gamma  (C)                        f32
//   beta   (C)                        f32
//   y      (images, PIXELS, C)        Elem
//
// mean and variance are those of the VALUES = PIXELS WIDTH values of a group of WIDTH = C / GROUPS channels of an image.
// All of them fit in workgroup memory: there the second sum and the result find them. Sums are of differences, from the
// group's first value and then from the mean, so that nothing cancels however far from zero the values lie.
//
// Grid    one workgroup per (image, group); each of its WG lanes has every WG-th value
// Cost    9 images PIXELS C flop; reads x and x2 once, writes y once: bound by memory
// Source  Wu & He 2018, arXiv:1803.08494
// Twin    crates/ratel-kernels/src/group_norm_whole.rs

import package::spec::{Elem};
import package::lib::act::act;
import package::lib::grid::workgroup_number;
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;
override WIDTH: u32 = 1u;
override VALUES: u32 = 64u;
override ACT: u32 = 0u;

struct Params { batch: u32, pixels: u32, c: u32, c1: u32, groups: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> x2: array<Elem>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Elem>;

var<workgroup> values: array<Elem, VALUES>;   // a lane reads what it wrote itself, so no barrier is needed

fn input(pixel: u32, c: u32) -> Elem {
    if c < p.c1 { return x[pixel * p.c1 + c]; }
    return x2[pixel * (p.c - p.c1) + c - p.c1];
}

@compute @workgroup_size(WG)
fn group_norm_whole(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid);   // of (image, group)
    let image = number / p.groups;
    if image >= p.batch { return; }
    let first_pixel = image * p.pixels;
    let first_channel = number % p.groups * WIDTH;

    let base = f32(input(first_pixel, first_channel));
    var sum = 0.0;
    for (var i = lane; i < VALUES; i += WG) {
        let value = input(first_pixel + i / WIDTH, first_channel + i % WIDTH);
        values[i] = value;
        sum += f32(value) - base;
    }
    // the mean stays in two parts, which hold it to more digits than one f32
    let mean = workgroup_sum(sum, lane) / f32(VALUES);

    sum = 0.0;
    for (var i = lane; i < VALUES; i += WG) {
        let d = f32(values[i]) - base - mean;
        sum += d * d;
    }
    let scale = 1.0 / sqrt(workgroup_sum(sum, lane) / f32(VALUES) + p.eps);

    for (var i = lane; i < VALUES; i += WG) {
        let c = first_channel + i % WIDTH;
        let normal = (f32(values[i]) - base - mean) * (scale * gamma[c]) + beta[c];
        y[(first_pixel + i / WIDTH) * p.c + c] = Elem(act(ACT, normal));
    }
}
