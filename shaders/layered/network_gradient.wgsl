// Operands of the gradients of a linear layer (network.wgsl), and where those of its parameters go.

// A row of d_y, and the four from there on; its columns of four outputs.
fn gradient_row(network: u32, row: u32) -> u32 {
    return layer.d_output + output_row(network, row);
}

fn gradient_rows(network: u32, row: u32) -> vec4<u32> {
    let width = select(layer.output_width, layer.outputs, NETWORKS == 1u);
    return gradient_row(network, row) + width * vec4<u32>(0u, 1u, 2u, 3u);
}

fn gradient_column(out: u32) -> u32 {
    return output_place(out);
}

fn gradient_columns(out: u32) -> vec4<u32> {
    return vec4<u32>(output_place(out), output_place(out + 1u), output_place(out + 2u), output_place(out + 3u));
}

fn put_weight_gradient(network: u32, split: u32, out: u32, k: u32, value: f32) {
    partials[split * layer.parameters + weight_index(network, out, k)] = value;
}

fn put_bias_gradient(network: u32, split: u32, out: u32, value: f32) {
    partials[split * layer.parameters + bias_index(network, out)] = value;
}
