// What every kernel of a base density begins with: the log-determinant of a row, the sum of log_dets (log_dets.wgsl) over its
// features. Each of the row's threads sums a part of it.

@group(0) @binding(9) var<storage, read> log_dets: array<f32>;
@group(0) @binding(10) var<storage, read_write> log_prob: array<f32>;
@group(0) @binding(11) var<storage, read_write> log_det: array<f32>;

// The row of a thread among the threads that share one.
fn row_of(group: u32, local: u32) -> u32 {
    return group * (256u / layer.lanes) + local / layer.lanes;
}

// Each thread's part of Σ_j log_det_j.
fn sum_log_dets(row: u32, lane: u32) -> f32 {
    var sum = 0.0;
    if row < extent.rows {
        for (var j = lane; j < layer.features; j += layer.lanes) {
            sum += log_dets[row * layer.features + j];
        }
    }
    return sum;
}
