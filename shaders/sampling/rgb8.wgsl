// rgb8: y[i] = round(255 clamp(x[i] / 2 + 1/2, 0, 1)), half to even
//
//   x  (COUNT)   Elem   red, green, blue of each pixel, -1 to 1
//   y  (COUNT)   u8     four in a u32, the first lowest; the last word is filled up with zeros
//
// Grid    one invocation per word of y
// Cost    4 COUNT flop; reads x once, writes y once: bound by memory
// Source  diffusers' VaeImageProcessor.postprocess
// Twin    crates/ratel-kernels/src/rgb8.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

struct Params { count: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn rgb8(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let word = workgroup_number(wg, grid) * WG + lane;
    let first = word * 4u;
    if first >= p.count { return; }
    var bytes = 0u;
    for (var i = first; i < min(first + 4u, p.count); i++) {
        let value = round(255.0 * clamp(f32(x[i]) * 0.5 + 0.5, 0.0, 1.0));
        bytes |= u32(value) << ((i - first) * 8u);
    }
    y[word] = bytes;
}
