// The first linear layer of the networks backward: where the gradient leaves a coupling for the transform before it.
//
// Equation:  d_W = d_yᵀ · x_a, d_b = Σ_rows d_y; d_z = d + Σ_networks d_y · W at kept features, d at the others, where d is
//            what came through the bijector; then d_z is passed on (through.wgsl).
// Threads:   a workgroup makes a tile of d_z, rows × kept features, and takes as many transformed features along, or a
//            tile of d_W (gradient.wgsl). The first transform, which has none before it, has only the latter.
// Data:      source is z [capacity, D], saved what the coupling that made it saved; d_output [NETWORKS, capacity, outputs];
//            d_coupling as in through.wgsl; partials [splits, P].
// Order:     two barriers a depth tile; sums over increasing depth, first network before second.
// Twin:      linear_backward_weight and linear_backward_input in src/cpu/reference/linear.rs, then coupling_input_backward
//            and coupling_backward in src/cpu/reference/coupling.rs

@compute @workgroup_size(THREADS)
fn first_layer_backward(
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
    // Without a bijector to go through, the gradient at transformed features is in place.
    let transformed = select(layer.features - layer.kept, 0u, THROUGH == 0u);
    let tiles_x = (max(layer.kept, transformed) + TILE_COLUMNS - 1u) / TILE_COLUMNS;
    let first = number % tiles_x * TILE_COLUMNS;
    let first_row = number / tiles_x * TILE_ROWS;
    var tile = add_input_product(Tile(), local, 0u, first_row, first);
    if NETWORKS == 2u {
        tile = add_input_product(tile, local, 1u, first_row, first);
    }
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    if row < extent.rows && column + j < layer.inputs {
                        let feature = input_column(column + j);
                        pass_through(row, feature, d_coupling[row * layer.features + feature] + values[j]);
                    }
                }
            }
        }
    }
    for (var i = local; i < TILE_ROWS * TILE_COLUMNS; i += THREADS) {
        let row = first_row + i / TILE_COLUMNS;
        let place = first + i % TILE_COLUMNS;
        if row < extent.rows && place < transformed {
            let feature = order[layer.order + layer.kept + place];
            pass_through(row, feature, d_coupling[row * layer.features + feature]);
        }
    }
}
