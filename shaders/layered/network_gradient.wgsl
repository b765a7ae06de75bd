// Operands of the gradients of a linear layer (network.wgsl), and where those of its parameters go.

// The gradient d_y, zero beyond the rows below `end`.
fn output_gradient(network: u32, row: u32, out: u32, end: u32) -> f32 {
    let inside = row < end && out < layer.outputs;
    let index = output_index(network, select(0u, row, inside), select(0u, out, inside));
    return select(0.0, d_output[layer.d_output + index], inside);
}

fn put_weight_gradient(network: u32, split: u32, out: u32, k: u32, value: f32) {
    partials[split * layer.parameters + weight_index(network, out, k)] = value;
}

fn put_bias_gradient(network: u32, split: u32, out: u32, value: f32) {
    partials[split * layer.parameters + bias_index(network, out)] = value;
}
