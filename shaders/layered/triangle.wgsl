// Operands of a product with a triangular matrix [M, M]: U with exp(log_diagonal) on its diagonal where UPPER is 1, else L
// with ones there. What lies beside the triangle is zero and is neither read nor written.
// Rows are [capacity, D], of which the first M features are multiplied.

fn in_triangle(out: u32, k: u32) -> bool {
    return out != k && (k > out) == (UPPER == 1u);
}

fn weight(network: u32, out: u32, k: u32) -> f32 {
    if out >= layer.outputs || k >= layer.inputs {
        return 0.0;
    }
    if in_triangle(out, k) {
        return parameters[layer.weight + out * layer.inputs + k];
    }
    if out != k {
        return 0.0;
    }
    if UPPER == 1u {
        return exp_accurate(parameters[layer.bias + out]);
    }
    return 1.0;
}

// The input, zero beyond the rows below `end`.
fn input(network: u32, row: u32, k: u32, end: u32) -> f32 {
    if row >= end || k >= layer.inputs {
        return 0.0;
    }
    return source[row * layer.features + k];
}
