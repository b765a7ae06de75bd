// Operands of the gradients of a linear layer (network.wgsl), and where those of its parameters go.

// The gradient d_y, zero beyond the rows below `end`.
fn output_gradient(network: u32, row: u32, out: u32, end: u32) -> f32 {
    if row >= end || out >= layer.outputs {
        return 0.0;
    }
    return d_output[layer.d_output + output_index(network, row, out)];
}

fn put_weight_gradient(network: u32, split: u32, out: u32, k: u32, value: f32) {
    partials[split * layer.parameters + weight_index(network, out, k)] = value;
}

fn put_bias_gradient(network: u32, split: u32, out: u32, value: f32) {
    partials[split * layer.parameters + bias_index(network, out)] = value;
}
