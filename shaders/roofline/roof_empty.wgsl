// roof_empty: y[0] = 1, as good as nothing, to learn what a dispatch costs by itself
//
//   y  (1)   f32   written so that it can be seen to have run
//
// Grid    one invocation
// Cost    0 flop; writes y once
// Source  none
// Twin    crates/ratel-kernels/src/roof_empty.rs

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn roof_empty() {
    y[0] = 1.0;
}
