// An LU layer backward, half of it a dispatch: first from d_z to d_y, then to d_x. The gradient at the context stays.
//
// Equation:  UPPER: d_x = d_y · U, d_U = d_yᵀ · x, of its diagonal d_log_diagonal_i = (d_U)_ii · exp(log_diagonal_i) − Σ_rows
//            factor; d_x is passed on (through.wgsl). Else d_y = d_z · L, d_L = d_zᵀ · y, d_bias = Σ_rows d_z.
// Threads:   a workgroup makes a tile of one of the two (tile.wgsl, gradient.wgsl). The first transform, at whose input d_x
//            is not wanted, has only the latter of UPPER.
// Data:      source is x or y, d_output d_y or d_z [capacity, D]; d_coupling as in through.wgsl, or takes d_y; partials
//            [splits, P].
// Order:     two barriers a depth tile; sums over increasing depth, partials over increasing rows.
// Twin:      backward in src/cpu/reference/lu.rs, then coupling_backward in src/cpu/reference/coupling.rs

@compute @workgroup_size(THREADS)
fn lu_backward(
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
    let first_column = number % tiles_x * TILE_COLUMNS;
    let first_row = number / tiles_x * TILE_ROWS;
    let tile = add_input_product(Tile(), local, 0u, first_row, first_column);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first_column + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    if row < extent.rows && column + j < layer.inputs {
                        pass_through(row, column + j, values[j]);
                    }
                }
            }
        }
    }
}
