// What every kernel of a base density begins with: the log-determinant of a row, whose threads each sum a part of its shares.

@group(0) @binding(9) var<storage, read> shares: array<f32>;
@group(0) @binding(10) var<storage, read_write> log_prob: array<f32>;
@group(0) @binding(11) var<storage, read_write> log_det: array<f32>;

// The row of a thread among the threads that share one.
fn row_of(group: u32, local: u32) -> u32 {
    return group * (256u / layer.lanes) + local / layer.lanes;
}

// Each thread's part of Σ_j shares_j.
fn sum_shares(row: u32, lane: u32) -> f32 {
    var sum = 0.0;
    if row < extent.rows {
        for (var j = lane; j < layer.features; j += layer.lanes) {
            sum += shares[row * layer.features + j];
        }
    }
    return sum;
}
