// An actnorm.
//
// Equation:  z = (x − shift) · exp(−s) for each modelled feature, log_det = −Σ s.
// Threads:   each takes its quads of AT_ROWS.
// Data:      packed: shifts, then log-scales s [4 · QUADS], zero for the context and beyond the last feature.
// Order:     a row's log_det is summed over the features of a quad in pairs.
// Twin:      src/cpu/actnorm.rs

fn exp_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(exp_accurate(x.x), exp_accurate(x.y), exp_accurate(x.z), exp_accurate(x.w));
}

fn normalise_quad(transform: FusedTransform, quad: u32, inverse: bool) {
    let value = memory[AT_ROWS + quad];
    let shift = packed[transform.weights + quad % QUADS];
    let s = packed[transform.weights + QUADS + quad % QUADS];
    let sum = (s.x + s.y) + (s.z + s.w);
    if inverse {
        memory[AT_ROWS + quad] = value * exp_quad(s) + shift;
        log_dets[quad] += sum;
    } else {
        memory[AT_ROWS + quad] = (value - shift) * exp_quad(-s);
        log_dets[quad] -= sum;
    }
}

