// The sum over the neighbouring threads that share a row, in a workgroup of 256.

var<workgroup> lane_sum: array<f32, 256>;

// Sums over each group of `lanes` threads (a power of two) by a fixed tree; the result stands at the group's first.
fn sum_lanes(local: u32, lanes: u32, value: f32) -> f32 {
    lane_sum[local] = value;
    workgroupBarrier();
    for (var stride = lanes / 2u; stride > 0u; stride /= 2u) {
        if local % lanes < stride {
            lane_sum[local] += lane_sum[local + stride];
        }
        workgroupBarrier();
    }
    return lane_sum[local];
}
