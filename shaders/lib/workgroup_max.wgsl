// workgroup_max: the greatest `value` of a workgroup's WG lanes, given to every lane. WG is the importing kernel's, a
// power of two. Called by all lanes from uniform control flow.

var<workgroup> lane_maxima: array<f32, WG>;

fn workgroup_max(value: f32, lane: u32) -> f32 {
    lane_maxima[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if lane < stride { lane_maxima[lane] = max(lane_maxima[lane], lane_maxima[lane + stride]); }
    }
    let greatest = workgroupUniformLoad(&lane_maxima[0]);
    workgroupBarrier();   // before the next call may overwrite lane_maxima
    return greatest;
}
