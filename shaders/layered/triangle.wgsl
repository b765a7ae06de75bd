// Operands of a product with a triangular matrix [M, M]: U with exp(log_diagonal) on its diagonal where UPPER is 1, else L
// with ones there. What lies beside the triangle is zero: it does not count and is not written.
// Rows are [capacity, D], of which the first M features are multiplied.

fn in_triangle(out: u32, k: u32) -> bool {
    return out != k && (k > out) == (UPPER == 1u);
}

fn input_row(network: u32, row: u32) -> u32 {
    return row * layer.features;
}

fn input_rows(network: u32, row: u32) -> vec4<u32> {
    return input_row(network, row) + layer.features * vec4<u32>(0u, 1u, 2u, 3u);
}

fn input_column(k: u32) -> u32 {
    return k;
}

fn input_columns(k: u32) -> vec4<u32> {
    return k + vec4<u32>(0u, 1u, 2u, 3u);
}

fn weight_row(network: u32, out: u32) -> u32 {
    return layer.weight + out * layer.inputs;
}

fn weight_rows(network: u32, out: u32) -> vec4<u32> {
    return weight_row(network, out) + layer.inputs * vec4<u32>(0u, 1u, 2u, 3u);
}

// Four numbers of the input, or zeros where they do not count.
fn inputs_at(at: vec4<u32>, counts: bool) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(source[at.x], source[at.y], source[at.z], source[at.w]), counts);
}

// Four numbers of the matrix, of outputs `out` and inputs `k`, or zeros where they do not count.
fn weights_at(at: vec4<u32>, out: vec4<u32>, k: vec4<u32>, counts: bool) -> vec4<f32> {
    let w = vec4<f32>(
        weight_at(at.x, out.x, k.x), weight_at(at.y, out.y, k.y), weight_at(at.z, out.z, k.z), weight_at(at.w, out.w, k.w),
    );
    return select(vec4<f32>(), w, counts);
}

fn weight_at(at: u32, out: u32, k: u32) -> f32 {
    if out != k {
        return select(0.0, parameters[at], in_triangle(out, k));
    }
    if UPPER == 1u {
        return exp_accurate(parameters[layer.bias + out]);
    }
    return 1.0;
}
