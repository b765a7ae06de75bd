// Operands of a product with a triangular matrix [M, M]: U with exp(log_diagonal) on its diagonal where UPPER is 1, else L
// with ones there. What lies beside the triangle is zero and is neither read nor written.
// Rows are [capacity, D], of which the first M features are multiplied.

fn in_triangle(out: u32, k: u32) -> bool {
    return out != k && (k > out) == (UPPER == 1u);
}

fn weight(network: u32, out: u32, k: u32) -> f32 {
    let inside = out < layer.outputs && k < layer.inputs && in_triangle(out, k);
    let beside = parameters[layer.weight + select(0u, out * layer.inputs + k, inside)];
    if out == k && out < layer.outputs {
        if UPPER == 1u {
            return exp_accurate(parameters[layer.bias + out]);
        }
        return 1.0;
    }
    return select(0.0, beside, inside);
}

// The input, zero beyond the rows below `end`.
fn input(network: u32, row: u32, k: u32, end: u32) -> f32 {
    let inside = row < end && k < layer.inputs;
    return select(0.0, source[select(0u, row * layer.features + k, inside)], inside);
}
