// Linear layers of the conditioners after the first, backward: both gradients of all networks in one dispatch.
//
// Equation:  d_pre = (d_y · W) ⊙ act'(source); d_W = d_yᵀ · act(source), d_b = Σ_rows d_y; the activation only where the
//            layer has one. Where ADDS is 1, a skip connection begins at source, and d_pre is added to what came by it.
// Threads:   a workgroup makes a tile of one of them (tile.wgsl, gradient.wgsl), for one network.
// Data:      source [NETWORKS, capacity, inputs] pre-activations; d_output [NETWORKS, capacity, outputs], or the planes of
//            θ in d_coupling (through.wgsl); destination d_pre like source; partials [splits, P].
// Order:     two barriers a depth tile; sums over increasing depth, partials over increasing rows.
// Twin:      linear_backward_input and linear_backward_weight in src/cpu/reference/linear.rs, activate_backward in
//            src/cpu/activation.rs

@group(0) @binding(7) var<storage, read_write> destination: array<f32>;

@compute @workgroup_size(THREADS)
fn linear_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group_number(group, groups);
    if number >= layer.input_groups {
        if number - layer.input_groups < weight_groups() {
            weight_gradient(local, number - layer.input_groups);
        }
        return;
    }
    let tiles_x = (layer.inputs + TILE_COLUMNS - 1u) / TILE_COLUMNS;
    let network = number % NETWORKS;
    let first_column = (number / NETWORKS) % tiles_x * TILE_COLUMNS;
    let first_row = number / NETWORKS / tiles_x * TILE_ROWS;
    let tile = add_input_product(Tile(), local, network, first_row, first_column);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first_column + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    if row < extent.rows && column + j < layer.inputs {
                        let index = source_index(network, row, column + j);
                        var gradient = values[j];
                        if ACTIVATED == 1u {
                            gradient = values[j] * activation_slope(ACTIVATION, source[index]);
                        }
                        if ADDS == 1u {
                            destination[index] += gradient;
                        } else {
                            destination[index] = gradient;
                        }
                    }
                }
            }
        }
    }
}
