// workgroup_sum: the sum of `value` over a workgroup's WG lanes, given to every lane. WG is the importing kernel's, a
// power of two. Called by all lanes from uniform control flow.

var<workgroup> lane_sums: array<f32, WG>;

fn workgroup_sum(value: f32, lane: u32) -> f32 {
    lane_sums[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if lane < stride { lane_sums[lane] += lane_sums[lane + stride]; }
    }
    let total = workgroupUniformLoad(&lane_sums[0]);
    workgroupBarrier();   // before the next call may overwrite lane_sums
    return total;
}
