// An LU layer z = L · (U · x) + bias over the M modelled features, half of it a dispatch: first y = U · x, then z. The context
// passes.
//
// Equation:  UPPER: y = U · x, log_det_j += log_diagonal_j; else z = L · y + bias.
// Threads:   a workgroup makes a tile of the product (tile.wgsl), rows × modelled features; x counts tiles of features, y of
//            rows. The first tile of a row takes its context along.
// Data:      source is x or y, rows x, destination y or z [capacity, D], of y only the modelled features; log_dets as in
//            coupling.wgsl; the triangle at layer.weight, log_diagonal or bias at layer.bias in parameters.
// Order:     two barriers a depth tile; sums over increasing depth, log_dets over transforms.
// Twin:      forward in src/cpu/reference/lu.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;

fn pass_context(local: u32, first_row: u32) {
    let context = layer.features - layer.modelled;
    for (var i = local; i < TILE_ROWS * context; i += THREADS) {
        let row = first_row + i / context;
        let index = row * layer.features + layer.modelled + i % context;
        if row < extent.rows {
            if UPPER == 1u {
                pass_log_det(index);
            } else {
                destination[index] = rows[index];
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn lu_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first_row = group.y * TILE_ROWS;
    let first_out = group.x * TILE_COLUMNS;
    let tile = forward_product(local, 0u, first_row, first_out);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first_out + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    let out = column + j;
                    if row < extent.rows && out < layer.outputs {
                        let index = row * layer.features + out;
                        let beside = parameters[layer.bias + out];
                        if UPPER == 1u {
                            destination[index] = values[j];
                            add_log_det(index, beside);
                        } else {
                            destination[index] = values[j] + beside;
                        }
                    }
                }
            }
        }
    }
    if group.x == 0u {
        pass_context(local, first_row);
    }
}
