// posterior: y = scale (mean + exp(clamp(logvar, -30, 20) / 2) noise - shift)
//
//   moments  (PIXELS, 2 CHANNELS)  Elem   of each latent pixel: the means, then the logarithms of the variances
//   noise    (PIXELS, CHANNELS)    f32    standard normal for a sample, zeros for the mode
//   y        (PIXELS, CHANNELS)    f32    latents as the UNet sees them
//
// Grid    one invocation per value of y
// Cost    8 PIXELS CHANNELS flop; reads moments and noise once, writes y once: bound by memory
// Source  diffusers' DiagonalGaussianDistribution; Kingma & Welling 2013, arXiv:1312.6114, section 2.4
// Twin    crates/ratel-kernels/src/posterior.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { pixels: u32, channels: u32, scale: f32, shift: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> moments: array<Elem>;
@group(0) @binding(1) var<storage, read> noise: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn posterior(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = workgroup_number(wg, grid) * WG + lane;
    if i >= p.pixels * p.channels { return; }
    let first = i / p.channels * 2u * p.channels + i % p.channels;
    let mean = f32(moments[first]);
    let logvar = clamp(f32(moments[first + p.channels]), -30.0, 20.0);
    y[i] = p.scale * (mean + exp(0.5 * logvar) * noise[i] - p.shift);
}
