// What follows lanes.wgsl where all threads that share a row need a result.

// The value of the first of each group of `lanes` threads, at all of them.
fn spread_lanes(local: u32, lanes: u32, value: f32) -> f32 {
    lane_sum[local] = value;
    workgroupBarrier();
    let first = lane_sum[local - local % lanes];
    // No thread may begin the next exchange before all have read this one.
    workgroupBarrier();
    return first;
}

// The largest value of each group of `lanes` threads (a power of two), at all of them.
fn max_lanes(local: u32, lanes: u32, value: f32) -> f32 {
    lane_sum[local] = value;
    workgroupBarrier();
    for (var stride = lanes / 2u; stride > 0u; stride /= 2u) {
        if local % lanes < stride {
            lane_sum[local] = max(lane_sum[local], lane_sum[local + stride]);
        }
        workgroupBarrier();
    }
    return spread_lanes(local, lanes, lane_sum[local]);
}
