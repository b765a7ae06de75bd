// log_det of each feature [capacity, D], the sum over transforms, which the first of them begins. determinant.wgsl sums it
// over features.

@group(0) @binding(7) var<storage, read_write> log_dets: array<f32>;

fn add_log_det(index: u32, value: f32) {
    if layer.begins == 1u {
        log_dets[index] = value;
    } else {
        log_dets[index] += value;
    }
}

// Of a feature that passes.
fn pass_log_det(index: u32) {
    if layer.begins == 1u {
        log_dets[index] = 0.0;
    }
}
