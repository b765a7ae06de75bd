// Batched linear layers of the conditioners: both networks of a coupling in one dispatch.
//
// Equation:  forward y = h · Wᵀ + b;  backward d_h = d_y · W and d_W = d_yᵀ · h, d_b = Σ_rows d_y, where h is the
//            activated input act(source), or mask ⊙ source in the first layer.
// Threads:   a workgroup of 16 × 16 makes a 64 × 64 tile of the result (tile.wgsl); z counts networks, and for
//            weights also the splits of the batch.
// Data:      source [2, capacity, inputs] pre-activations ([capacity, inputs] in the first layer); destination
//            [2, capacity, outputs], d_source like source but always with two planes, or partials [splits, P].
// Order:     two barriers a depth tile; every sum runs over increasing depth, partials over increasing rows.
// Twin:      src/cpu/linear.rs

struct Linear {
    inputs: u32,
    outputs: u32,
    // Offsets of the scale network's weight and bias; the translate network's lie network_stride further.
    weight: u32,
    bias: u32,
    network_stride: u32,
    // Distance between the networks' planes in source: 0 where both read the same rows.
    source_stride: u32,
    // Rows between the planes of all other activations.
    capacity: u32,
    activation: u32,
    // 1 in the first layer: the source is masked instead of activated.
    masked: u32,
    // Offset of the coupling's mask in masks.
    mask: u32,
    // Rows of the batch that one split of the weight gradient sums.
    rows_per_split: u32,
    // Parameters P: the distance between two splits' partials.
    parameters: u32,
}

@group(0) @binding(0) var<uniform> linear: Linear;
@group(0) @binding(1) var<storage, read> extent: Extent;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> source: array<f32>;
@group(0) @binding(4) var<storage, read> masks: array<f32>;
@group(0) @binding(5) var<storage, read> d_output: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;

fn source_index(network: u32, row: u32, column: u32) -> u32 {
    return network * linear.source_stride + row * linear.inputs + column;
}

// The layer's input h, zero outside of the batch.
fn input(network: u32, row: u32, column: u32) -> f32 {
    if row >= extent.rows || column >= linear.inputs {
        return 0.0;
    }
    let value = source[source_index(network, row, column)];
    if linear.masked == 1u {
        return value * masks[linear.mask + column];
    }
    return activate(linear.activation, value);
}

fn output_index(network: u32, row: u32, column: u32) -> u32 {
    return (network * linear.capacity + row) * linear.outputs + column;
}

// The gradient d_y, zero outside of the rows below `end`.
fn output_gradient(network: u32, row: u32, column: u32, end: u32) -> f32 {
    if row >= end || column >= linear.outputs {
        return 0.0;
    }
    return d_output[output_index(network, row, column)];
}

fn weight_index(network: u32, out: u32, column: u32) -> u32 {
    return linear.weight + network * linear.network_stride + out * linear.inputs + column;
}

fn weight(network: u32, out: u32, column: u32) -> f32 {
    if out >= linear.outputs || column >= linear.inputs {
        return 0.0;
    }
    return parameters[weight_index(network, out, column)];
}

@compute @workgroup_size(256)
fn linear_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let network = group.z;
    let first_out = group.x * TILE;
    let first_row = group.y * TILE;
    let depth = local % 16u;
    let quad = local / 16u;
    var block = Block();
    for (var start = 0u; start < linear.inputs; start += DEPTH) {
        let k = start + depth;
        let row = first_row + 4u * quad;
        let out = first_out + 4u * quad;
        tile_a[depth * LINE + quad] = vec4<f32>(
            input(network, row, k),
            input(network, row + 1u, k),
            input(network, row + 2u, k),
            input(network, row + 3u, k),
        );
        tile_b[depth * LINE + quad] = vec4<f32>(
            weight(network, out, k),
            weight(network, out + 1u, k),
            weight(network, out + 2u, k),
            weight(network, out + 3u, k),
        );
        workgroupBarrier();
        if first_out + 4u * depth < linear.outputs {
            block = multiply_tiles(block, depth, quad, min(DEPTH, linear.inputs - start));
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + 4u * quad + i;
        let values = block_row(block, i);
        for (var j = 0u; j < 4u; j++) {
            let out = first_out + 4u * depth + j;
            if row < extent.rows && out < linear.outputs {
                let bias = parameters[linear.bias + network * linear.network_stride + out];
                destination[output_index(network, row, out)] = values[j] + bias;
            }
        }
    }
}

@compute @workgroup_size(256)
fn linear_backward_input(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let network = group.z;
    let first_column = group.x * TILE;
    let first_row = group.y * TILE;
    let tx = local % 16u;
    let ty = local / 16u;
    var block = Block();
    for (var start = 0u; start < linear.outputs; start += DEPTH) {
        let row = first_row + 4u * ty;
        let k = start + tx;
        tile_a[tx * LINE + ty] = vec4<f32>(
            output_gradient(network, row, k, extent.rows),
            output_gradient(network, row + 1u, k, extent.rows),
            output_gradient(network, row + 2u, k, extent.rows),
            output_gradient(network, row + 3u, k, extent.rows),
        );
        let out = start + ty;
        let column = first_column + 4u * tx;
        tile_b[ty * LINE + tx] = vec4<f32>(
            weight(network, out, column),
            weight(network, out, column + 1u),
            weight(network, out, column + 2u),
            weight(network, out, column + 3u),
        );
        workgroupBarrier();
        if first_column + 4u * tx < linear.inputs {
            block = multiply_tiles(block, tx, ty, min(DEPTH, linear.outputs - start));
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + 4u * ty + i;
        let values = block_row(block, i);
        for (var j = 0u; j < 4u; j++) {
            let column = first_column + 4u * tx + j;
            if row < extent.rows && column < linear.inputs {
                var slope = 0.0;
                if linear.masked == 1u {
                    slope = masks[linear.mask + column];
                } else {
                    slope = activation_slope(linear.activation, source[source_index(network, row, column)]);
                }
                let index = (network * linear.capacity + row) * linear.inputs + column;
                destination[index] = values[j] * slope;
            }
        }
    }
}

@compute @workgroup_size(256)
fn linear_backward_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let network = group.z % 2u;
    let split = group.z / 2u;
    let first_column = group.x * TILE;
    let first_out = group.y * TILE;
    let tx = local % 16u;
    let ty = local / 16u;
    // The uniform bound keeps the barriers in uniform control flow; rows beyond the batch count as zero.
    let begin = split * linear.rows_per_split;
    let end = min(extent.rows, begin + linear.rows_per_split);
    var block = Block();
    var bias = vec4<f32>();
    for (var start = 0u; start < linear.rows_per_split; start += DEPTH) {
        let row = begin + start + ty;
        let out = first_out + 4u * tx;
        tile_a[ty * LINE + tx] = vec4<f32>(
            output_gradient(network, row, out, end),
            output_gradient(network, row, out + 1u, end),
            output_gradient(network, row, out + 2u, end),
            output_gradient(network, row, out + 3u, end),
        );
        let column = first_column + 4u * tx;
        tile_b[ty * LINE + tx] = vec4<f32>(
            input(network, row, column),
            input(network, row, column + 1u),
            input(network, row, column + 2u),
            input(network, row, column + 3u),
        );
        workgroupBarrier();
        if first_column + 4u * tx < linear.inputs && first_out + 4u * ty < linear.outputs {
            block = multiply_tiles(block, tx, ty, DEPTH);
        }
        if group.x == 0u && tx == 0u {
            for (var k = 0u; k < DEPTH; k++) {
                bias += tile_a[k * LINE + ty];
            }
        }
        workgroupBarrier();
    }
    let base = split * linear.parameters;
    for (var i = 0u; i < 4u; i++) {
        let out = first_out + 4u * ty + i;
        let values = block_row(block, i);
        for (var j = 0u; j < 4u; j++) {
            let column = first_column + 4u * tx + j;
            if out < linear.outputs && column < linear.inputs {
                destination[base + weight_index(network, out, column)] = values[j];
            }
        }
        if group.x == 0u && tx == 0u && out < linear.outputs {
            destination[base + linear.bias + network * linear.network_stride + out] = bias[i];
        }
    }
}
