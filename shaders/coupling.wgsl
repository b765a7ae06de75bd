// The last linear layer of both networks and the affine coupling that they parameterise, in one dispatch.
//
// Equation:  o = h_s · W_sᵀ + b_s, t = h_t · W_tᵀ + b_t; forward z_b = (x_b − t) · exp(−s), share −= s;
//            inverse x_b = z_b · exp(s) + t, share += s, with s = c · tanh(o / c); kept features pass.
// Threads:   a workgroup makes one tile of o and the same tile of t, rows × transformed features, and passes as many
//            kept features on; x counts tiles of features, y of rows.
// Data:      source [2, capacity, inputs] pre-activations; rows, destination, shares (each feature's share of log_det,
//            summed over couplings) and raw (o, for the backward pass) [capacity, D].
// Order:     two barriers a depth tile; sums over increasing depth, shares over couplings.
// Twin:      linear_forward in src/cpu/linear.rs, then coupling_forward or coupling_inverse in src/cpu/coupling.rs

@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> destination: array<f32>;
@group(0) @binding(7) var<storage, read_write> shares: array<f32>;
@group(0) @binding(8) var<storage, read_write> raw: array<f32>;

fn couple(group: vec3<u32>, local: u32, inverse: bool) {
    let first_row = group.y * TILE_ROWS;
    let first = group.x * TILE_COLUMNS;
    let log_scales = forward_product(local, 0u, first_row, first);
    let shifts = forward_product(local, 1u, first_row, first);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let log_scale = tile_values(log_scales, row_half, i, column_half);
                let shift = tile_values(shifts, row_half, i, column_half);
                let column = first + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    let out = column + j;
                    if row < extent.rows && out < layer.outputs {
                        let index = row * layer.features + output_column(out);
                        let o = log_scale[j] + parameters[bias_index(0u, out)];
                        let t = shift[j] + parameters[bias_index(1u, out)];
                        var moved: vec2<f32>;
                        if inverse {
                            moved = affine_inverse(rows[index], o, t, layer.bound);
                        } else {
                            moved = affine_forward(rows[index], o, t, layer.bound);
                        }
                        destination[index] = moved.x;
                        raw[index] = o;
                        if layer.begins == 1u {
                            shares[index] = moved.y;
                        } else {
                            shares[index] += moved.y;
                        }
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
            if layer.begins == 1u {
                shares[index] = 0.0;
            }
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
