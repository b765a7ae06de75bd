// The last linear layer of two separate networks and the bijector of two numbers that they parameterise, in one dispatch.
//
// Equation:  θ_k = h_k · W_kᵀ + b_k for k = 0, 1; transformed features go through the bijector, in either direction;
//            log_det_j += its log-determinant; kept features pass.
// Threads:   a workgroup makes one tile of θ_0 and the same tile of θ_1, rows × transformed features, and passes as many
//            kept features on; x counts tiles of features, y of rows.
// Data:      source [2, capacity, inputs] pre-activations; rows, destination, log_dets
//            (log_dets.wgsl) [capacity, D]; saved [SAVED, capacity, D] for the backward pass.
// Order:     two barriers a depth tile; sums over increasing depth, log_dets over transforms.
// Twin:      linear_forward in src/cpu/reference/linear.rs, then coupling_forward and coupling_inverse in
//            src/cpu/reference/coupling.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;
@group(0) @binding(8) var<storage, read_write> saved: array<f32>;

fn couple(group: vec3<u32>, local: u32, inverse: bool) {
    let first_row = group.y * TILE_ROWS;
    let first = group.x * TILE_COLUMNS;
    let plane = layer.capacity * layer.features;
    let first_numbers = forward_product(local, 0u, first_row, first);
    let second_numbers = forward_product(local, 1u, first_row, first);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let number0 = tile_values(first_numbers, row_half, i, column_half);
                let number1 = tile_values(second_numbers, row_half, i, column_half);
                let column = first + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    let out = column + j;
                    if row < extent.rows && out < layer.outputs {
                        let index = row * layer.features + output_column(out);
                        var theta = Theta(
                            number0[j] + parameters[bias_index(0u, out)],
                            number1[j] + parameters[bias_index(1u, out)],
                        );
                        var result: vec2<f32>;
                        if inverse {
                            result = bijector_inverse(rows[index], theta, layer.bound);
                        } else {
                            result = bijector_forward(rows[index], theta, layer.bound);
                        }
                        destination[index] = result.x;
                        for (var k = 0u; k < SAVED; k++) {
                            saved[k * plane + index] = theta[k];
                        }
                        add_log_det(index, result.y);
                    }
                }
            }
        }
    }
    for (var i = local; i < TILE_ROWS * TILE_COLUMNS; i += THREADS) {
        let row = first_row + i / TILE_COLUMNS;
        let place = first + i % TILE_COLUMNS;
        if row < extent.rows && place < layer.kept {
            let index = row * layer.features + order[layer.order + place];
            destination[index] = rows[index];
            pass_log_det(index);
        }
    }
}

@compute @workgroup_size(THREADS)
fn coupling_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    couple(group, local, false);
}

@compute @workgroup_size(THREADS)
fn coupling_inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    couple(group, local, true);
}
