// guidance: y = g (rescale std(cond) / std(g) + 1 - rescale),    g = uncond + scale (cond - uncond)
//
//   model  (2, images, COUNT)   Elem   the predictions without the prompt (uncond), then those with it (cond)
//   y      (images, COUNT)      f32
//   std(cond), std(g) over the COUNT values of an image; not computed unless RESCALE, when rescale is not 0
//
// Only the ratio of the two is needed, so sums of squares do for deviations. Where g is the same everywhere, it stays.
//
// Grid    (workgroups of an image, images); an image has one workgroup when RESCALE
// Cost    (3 + 12 RESCALE) images COUNT flop; reads model once, writes y once: bound by memory
// Source  Ho & Salimans 2022, arXiv:2207.12598; Lin et al. 2024, arXiv:2305.08891, section 3.4; diffusers'
//         rescale_noise_cfg
// Twin    crates/ratel-kernels/src/guidance.rs

import package::spec::{Elem};
import package::lib::workgroup_sum::workgroup_sum;

override WG: u32 = 64u;
override RESCALE: bool = false;

struct Params { batch: u32, count: u32, scale: f32, rescale: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> model: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn cond(i: u32) -> f32 {
    return f32(model[p.batch * p.count + i]);
}

fn guided(i: u32) -> f32 {
    let uncond = f32(model[i]);
    return uncond + p.scale * (cond(i) - uncond);
}

@compute @workgroup_size(WG)
fn guidance(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = wg.y * p.count;   // the image's
    let end = first + p.count;

    var factor = 1.0;
    if RESCALE {
        var sum_cond = 0.0;
        var sum_g = 0.0;
        for (var i = first + lane; i < end; i += WG) {
            sum_cond += cond(i);
            sum_g += guided(i);
        }
        let mean_cond = workgroup_sum(sum_cond, lane) / f32(p.count);
        let mean_g = workgroup_sum(sum_g, lane) / f32(p.count);

        var square_cond = 0.0;
        var square_g = 0.0;
        for (var i = first + lane; i < end; i += WG) {
            let d_cond = cond(i) - mean_cond;
            let d_g = guided(i) - mean_g;
            square_cond += d_cond * d_cond;
            square_g += d_g * d_g;
        }
        square_cond = workgroup_sum(square_cond, lane);
        square_g = workgroup_sum(square_g, lane);
        if square_g > 0.0 { factor = p.rescale * sqrt(square_cond / square_g) + 1.0 - p.rescale; }
    }

    for (var i = first + wg.x * WG + lane; i < end; i += grid.x * WG) {
        y[i] = guided(i) * factor;
    }
}
