// Operands of a linear layer, for the NETWORKS of a coupling, one or two, which have layers of the same shape. Only kept
// features feed the first layer, where input number n is the n-th of them. Only the P = NETWORK_NUMBERS numbers of θ for
// each transformed feature leave the last one, where output number n is number n % P of the (n / P)-th of those. Masked
// entries of their weights are neither read nor written.
//
// Planes [NETWORKS, capacity, width] hold the networks' activations. θ of two networks lies in planes as wide as all
// features, that of one network as it leaves the last layer, [capacity, outputs].

// Column of input number `k`.
fn input_column(k: u32) -> u32 {
    if FIRST == 1u {
        return order[layer.order + k];
    }
    return k;
}

// Column of output number `out`.
fn output_column(out: u32) -> u32 {
    if LAST == 1u {
        return order[layer.order + layer.kept + out / NETWORK_NUMBERS] * NETWORK_NUMBERS + out % NETWORK_NUMBERS;
    }
    return out;
}

// A row of the networks' input, and the four from there on.
fn input_row(network: u32, row: u32) -> u32 {
    return network * layer.source_stride + row * layer.input_width;
}

fn input_rows(network: u32, row: u32) -> vec4<u32> {
    return input_row(network, row) + layer.input_width * vec4<u32>(0u, 1u, 2u, 3u);
}

// Columns of four inputs.
fn input_columns(k: u32) -> vec4<u32> {
    return vec4<u32>(input_column(k), input_column(k + 1u), input_column(k + 2u), input_column(k + 3u));
}

// A network's first weight.
fn first_weight(network: u32) -> u32 {
    return layer.weight + network * layer.network_stride;
}

// A row of the weights, and the four from there on.
fn weight_row(network: u32, out: u32) -> u32 {
    return first_weight(network) + output_column(out) * layer.input_width;
}

fn weight_rows(network: u32, out: u32) -> vec4<u32> {
    let columns =
        vec4<u32>(output_column(out), output_column(out + 1u), output_column(out + 2u), output_column(out + 3u));
    return first_weight(network) + columns * layer.input_width;
}

fn source_index(network: u32, row: u32, k: u32) -> u32 {
    return input_row(network, row) + input_column(k);
}

fn weight_index(network: u32, out: u32, k: u32) -> u32 {
    return weight_row(network, out) + input_column(k);
}

// A row of the networks' output, and a column of it.
fn output_row(network: u32, row: u32) -> u32 {
    if NETWORKS == 1u {
        return row * layer.outputs;
    }
    return (network * layer.capacity + row) * layer.output_width;
}

fn output_place(out: u32) -> u32 {
    if NETWORKS == 1u {
        return out;
    }
    return output_column(out);
}

fn output_index(network: u32, row: u32, out: u32) -> u32 {
    return output_row(network, row) + output_place(out);
}

fn bias_index(network: u32, out: u32) -> u32 {
    return layer.bias + network * layer.network_stride + output_column(out);
}

// Four numbers of the layer's input h, activated where ACTIVATED is 1, or zeros where they do not count.
fn inputs_at(at: vec4<u32>, counts: bool) -> vec4<f32> {
    var h = vec4<f32>(source[at.x], source[at.y], source[at.z], source[at.w]);
    if ACTIVATED == 1u {
        h = vec4<f32>(
            activate(ACTIVATION, h.x), activate(ACTIVATION, h.y), activate(ACTIVATION, h.z), activate(ACTIVATION, h.w),
        );
    }
    return select(vec4<f32>(), h, counts);
}

// Four weights, of outputs `out` and inputs `k`, or zeros where they do not count.
fn weights_at(at: vec4<u32>, out: vec4<u32>, k: vec4<u32>, counts: bool) -> vec4<f32> {
    let w = vec4<f32>(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
    return select(vec4<f32>(), w, counts);
}
