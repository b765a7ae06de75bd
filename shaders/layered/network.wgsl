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

fn source_index(network: u32, row: u32, k: u32) -> u32 {
    return network * layer.source_stride + row * layer.input_width + input_column(k);
}

fn output_index(network: u32, row: u32, out: u32) -> u32 {
    if NETWORKS == 1u {
        return row * layer.outputs + out;
    }
    return (network * layer.capacity + row) * layer.output_width + output_column(out);
}

fn weight_index(network: u32, out: u32, k: u32) -> u32 {
    return layer.weight + network * layer.network_stride + output_column(out) * layer.input_width + input_column(k);
}

fn bias_index(network: u32, out: u32) -> u32 {
    return layer.bias + network * layer.network_stride + output_column(out);
}

// Operands are loaded whether they count or not, from a place that exists: loads behind a branch wait for each other.

// The layer's input h, activated where ACTIVATED is 1, and zero beyond the rows below `end`.
fn input(network: u32, row: u32, k: u32, end: u32) -> f32 {
    let inside = row < end && k < layer.inputs;
    var value = source[source_index(network, select(0u, row, inside), select(0u, k, inside))];
    if ACTIVATED == 1u {
        value = activate(ACTIVATION, value);
    }
    return select(0.0, value, inside);
}

fn weight(network: u32, out: u32, k: u32) -> f32 {
    let inside = out < layer.outputs && k < layer.inputs;
    return select(0.0, parameters[weight_index(network, select(0u, out, inside), select(0u, k, inside))], inside);
}
