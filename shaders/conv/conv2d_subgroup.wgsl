// conv2d_subgroup: y[i, v, u, n] = act( sum_{r, s, c} x[i, v stride + r - pad_top, u stride + s - pad_left, c] w[r, s, c, n]
//                                       +  bias[n]  +  image_bias[i, n] )  +  residual[i, v, u, n],
// as a matrix product with a row for each pixel m = (i, v, u) of y, one subgroup a tile of it; for drivers that run on a CPU
//
//   x           (images, H, W, C1)          Elem     zero outside its bounds; enlarged to (UP_H, UP_W) first, row v of
//                                                    that being row v H / UP_H
//   x2          (images, H, W, C - C1)      Elem     channels from C1 on, when there are any
//   w           (WINDOW_H, WINDOW_W, C, N)  Weight   in panels: PyTorch's Conv2d.weight, turned
//   bias        (N)                         f32      when there is one
//   image_bias  (images, N)                 Elem     when there is one
//   residual    (images, OUT_H, OUT_W, N)   Elem     when there is one
//   y           (images, OUT_H, OUT_W, N)   Elem
//
// Grid    one workgroup of one subgroup per GROUPS LANES pixels and 2 PAIRS LANES channels of y; C1, C, N even
// Cost    2 images OUT_H OUT_W N WINDOW_H WINDOW_W C flop; reads every input once, writes y once
// Source  torch.nn.functional.conv2d; .interpolate(mode="nearest"); implicit products as in Chetlur et al. 2014,
//         arXiv:1410.0759
// Twin    crates/ratel-kernels/src/conv2d.rs

import package::spec::{ElemPair, WeightPair, GROUPS, LANES, PAIRS, ROWS};
import package::lib::act::act;
import package::lib::grid::workgroup_number;
import package::lib::panels::panel_index;
import package::lib::panels::panel_width;
import package::lib::subgroup_tile::tile_multiply_add;

override ACT: u32 = 0u;
override BIAS: bool = false;
override IMAGE_BIAS: bool = false;
override RESIDUAL: bool = false;
override TWO_INPUTS: bool = false;

struct Params {
    batch: u32, h: u32, w: u32, c: u32, c1: u32, n: u32,
    window_h: u32, window_w: u32, stride: u32, pad_top: i32, pad_left: i32,
    up_h: u32, up_w: u32, out_h: u32, out_w: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<ElemPair>;
@group(0) @binding(1) var<storage, read> x2: array<ElemPair>;
@group(0) @binding(2) var<storage, read> w: array<WeightPair>;
@group(0) @binding(3) var<storage, read> bias: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> image_bias: array<ElemPair>;
@group(0) @binding(5) var<storage, read> residual: array<ElemPair>;
@group(0) @binding(6) var<storage, read_write> y: array<ElemPair>;

var<workgroup> sums: array<vec2<f32>, ROWS * PAIRS * LANES>;

// Everything below counts c and n in pairs.
@compute @workgroup_size(LANES)
fn conv2d_subgroup(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pixels = p.batch * p.out_h * p.out_w;
    let pairs = p.n / 2u;
    let blocks = (pairs + PAIRS * LANES - 1u) / (PAIRS * LANES);
    let number = workgroup_number(wg, grid);
    // neighbouring workgroups take the same columns, whose weights are in the cache by then
    let tiles = (pixels + ROWS - 1u) / ROWS;
    if number >= tiles * blocks { return; }
    let m0 = number % tiles * ROWS;
    let n0 = number / tiles * PAIRS * LANES + lane;

    // lanes beyond an edge compute on the last pixel or channel, and store nothing
    var image: array<u32, GROUPS>;
    var top: array<i32, GROUPS>;    // the window's first row and column in the enlarged input
    var left: array<i32, GROUPS>;
    // unroll
    for (var g = 0u; g < GROUPS; g++) {
        let m = min(m0 + g * LANES + lane, pixels - 1u);
        image[g] = m / p.out_w / p.out_h;
        top[g] = i32(m / p.out_w % p.out_h * p.stride) - p.pad_top;
        left[g] = i32(m % p.out_w * p.stride) - p.pad_left;
    }
    // where the next weights of each of the lane's pairs of channels are, and how far it is to those of the next row
    var at: array<u32, PAIRS>;
    var step: array<u32, PAIRS>;
    // unroll
    for (var j = 0u; j < PAIRS; j++) {
        let n = 2u * min(n0 + j * LANES, pairs - 1u);
        at[j] = panel_index(0u, n, p.window_h * p.window_w * p.c, p.n) / 2u;
        step[j] = panel_width(n, p.n) / 2u;
    }

    let c1 = p.c1 / 2u;
    let c2 = p.c / 2u - c1;
    var tile: Tile;
    for (var r = 0u; r < p.window_h; r++) {
        for (var s = 0u; s < p.window_w; s++) {
            var inside: array<bool, GROUPS>;
            var pixel: array<u32, GROUPS>;
            // unroll
            for (var g = 0u; g < GROUPS; g++) {
                // what lies above or left of the input wraps round to a large number
                let row = u32(top[g] + i32(r));
                let across = u32(left[g] + i32(s));
                inside[g] = row < p.up_h && across < p.up_w;
                let at = (image[g] * p.h + row * p.h / p.up_h) * p.w + across * p.w / p.up_w;
                pixel[g] = select(0u, at, inside[g]);
            }
            for (var c = 0u; c < c1 + c2; c++) {
                var even: array<vec2<f32>, PAIRS>;
                var odd: array<vec2<f32>, PAIRS>;
                // unroll
                for (var j = 0u; j < PAIRS; j++) {
                    even[j] = weight_pair(w[at[j]]);
                    odd[j] = weight_pair(w[at[j] + step[j]]);
                    at[j] += 2u * step[j];
                }
                // a group's inputs are loaded when it is its turn: faster here, but not in matmul_subgroup
                // (ARCHITECTURE.md, Measuring)
                // unroll
                for (var g = 0u; g < GROUPS; g++) {
                    var input: ElemPair;
                    if TWO_INPUTS && c >= c1 { input = x2[pixel[g] * c2 + c - c1]; } else { input = x[pixel[g] * c1 + c]; }
                    tile_multiply_add(&tile, g, select(ElemPair(), input, inside[g]), even, odd);
                }
            }
        }
    }

    // each lane stores its own sums, by way of workgroup memory: a tile indexed by a variable would not stay in registers,
    // and the stores written out would take longer to compile than all else
    // unroll
    for (var i = 0u; i < ROWS; i++) {
        // unroll
        for (var j = 0u; j < PAIRS; j++) {
            sums[(i * PAIRS + j) * LANES + lane] = tile[i * PAIRS + j];
        }
    }
    for (var j = 0u; j < PAIRS; j++) {
        let n = n0 + j * LANES;
        var term = vec2<f32>();
        if BIAS { term = bias[min(n, pairs - 1u)]; }
        for (var i = 0u; i < ROWS; i++) {
            store(m0 + i, n, sums[(i * PAIRS + j) * LANES + lane] + term);
        }
    }
}

// What is done to two sums of pixel m, biased, before they are written.
fn store(m: u32, n: u32, biased: vec2<f32>) {
    let pairs = p.n / 2u;
    if m >= p.batch * p.out_h * p.out_w || n >= pairs { return; }
    var sum = biased;
    if IMAGE_BIAS { sum += pair_values(image_bias[m / (p.out_h * p.out_w) * pairs + n]); }
    sum = vec2(act(ACT, sum.x), act(ACT, sum.y));
    if RESIDUAL { sum += pair_values(residual[m * pairs + n]); }
    y[m * pairs + n] = elem_pair(sum);
}
