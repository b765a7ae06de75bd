// Operands of the gradients of a product with a triangular matrix (triangle.wgsl), and where those of its parameters go.
// With L goes the bias that is added to the product, and with U the log-determinant Σ log_diagonal.

// d_y is laid out as the input.
fn gradient_row(network: u32, row: u32) -> u32 {
    return input_row(network, row);
}

fn gradient_rows(network: u32, row: u32) -> vec4<u32> {
    return input_rows(network, row);
}

fn gradient_column(out: u32) -> u32 {
    return input_column(out);
}

fn gradient_columns(out: u32) -> vec4<u32> {
    return input_columns(out);
}

fn put_weight_gradient(network: u32, split: u32, out: u32, k: u32, value: f32) {
    let base = split * layer.parameters;
    if in_triangle(out, k) {
        partials[base + layer.weight + out * layer.inputs + k] = value;
    } else if UPPER == 1u && out == k {
        let begin = split * layer.rows_per_split;
        let end = min(extent.rows, begin + layer.rows_per_split);
        var factors = 0.0;
        for (var row = begin; row < end; row++) {
            factors += row_factor(row);
        }
        partials[base + layer.bias + out] = value * exp_accurate(parameters[layer.bias + out]) - factors;
    }
}

fn put_bias_gradient(network: u32, split: u32, out: u32, value: f32) {
    if UPPER == 0u {
        partials[split * layer.parameters + layer.bias + out] = value;
    }
}
