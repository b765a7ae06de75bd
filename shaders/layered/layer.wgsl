// What the kernels of a linear layer share: its sizes, its buffers and its operands, for the NETWORKS of a coupling, one or
// two, which have layers of the same shape. Only kept features feed the first layer, where input number n is the n-th of
// them. Only NUMBERS numbers of θ for each transformed feature leave the last one, where output number n is number
// n % NUMBERS of the (n / NUMBERS)-th of those. Masked entries of their weights are neither read nor written.
//
// Planes [NETWORKS, capacity, width] hold the networks' activations. θ of two networks lies in planes as wide as all
// features, that of one network as it leaves the last layer, [capacity, outputs].

struct Layer {
    // Inputs that feed the layer and outputs that leave it.
    inputs: u32,
    outputs: u32,
    // Lengths of the weight's rows and columns: inputs and outputs, but those of all features at the ends of a network.
    input_width: u32,
    output_width: u32,
    // Offsets of the first network's weight and bias; those of a second one lie network_stride further.
    weight: u32,
    bias: u32,
    network_stride: u32,
    // Parameters P: the distance between two splits' partials.
    parameters: u32,
    // Distance between the networks' planes in source: 0 where both read the same rows.
    source_stride: u32,
    // Offset of the first network's plane in d_output.
    d_output: u32,
    // Rows between the planes of all other activations.
    capacity: u32,
    features: u32,
    // Offset of this coupling in order.
    order: u32,
    // Features that it keeps.
    kept: u32,
    // Offset in order of the coupling that the gradient passes back through, and its bijector's bound.
    through: u32,
    through_bound: f32,
    // Rows of the batch that one split of the weight gradient sums.
    rows_per_split: u32,
    // Workgroups that make the gradient at the input; the others make the weight gradient.
    input_groups: u32,
    // 1 for the transform with which log_det begins.
    begins: u32,
    bound: f32,
    // Threads that share a row where rows are summed.
    lanes: u32,
    // Features whose density the flow is: all but the context, which follows them.
    modelled: u32,
}

@group(0) @binding(0) var<uniform> layer: Layer;
@group(0) @binding(1) var<storage, read> extent: Extent;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> source: array<f32>;
// For each coupling among L transforms its features, kept ones first, then for each feature 1 if it is kept: [L, 2, D].
@group(0) @binding(4) var<storage, read> order: array<u32>;

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
        return order[layer.order + layer.kept + out / NUMBERS] * NUMBERS + out % NUMBERS;
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

// The layer's input h, activated where ACTIVATED is 1, and zero beyond the rows below `end`.
fn input(network: u32, row: u32, k: u32, end: u32) -> f32 {
    if row >= end || k >= layer.inputs {
        return 0.0;
    }
    let value = source[source_index(network, row, k)];
    if ACTIVATED == 0u {
        return value;
    }
    return activate(ACTIVATION, value);
}

fn weight(network: u32, out: u32, k: u32) -> f32 {
    if out >= layer.outputs || k >= layer.inputs {
        return 0.0;
    }
    return parameters[weight_index(network, out, k)];
}
