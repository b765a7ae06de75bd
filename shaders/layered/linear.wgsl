// Linear layers of the conditioners, forward: all networks of a coupling in one dispatch.
//
// Equation:  y = h · Wᵀ + b, where h is act(source), or source as it is; where ADDS is 1, plus the result of the layer that
//            a skip connection begins at.
// Threads:   a workgroup makes a tile of y (tile.wgsl): x counts its columns, y its rows, z networks.
// Data:      source [NETWORKS, capacity, inputs] pre-activations ([capacity, D] in the first layer); destination and
//            skip [NETWORKS, capacity, outputs] pre-activations, or θ: what activates them is the layer that reads them,
//            because the backward pass wants them as they are and storing both would move more bytes.
// Order:     two barriers a depth tile; sums over increasing depth.
// Twin:      linear_forward in src/cpu/reference/linear.rs

@group(0) @binding(5) var<storage, read_write> destination: array<f32>;
@group(0) @binding(6) var<storage, read> skip: array<f32>;

@compute @workgroup_size(THREADS)
fn linear_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let network = group.z;
    let first_row = group.y * TILE_ROWS;
    let first_out = group.x * TILE_COLUMNS;
    let tile = forward_product(local, network, first_row, first_out);
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = first_row + tile_row(local / THREADS_X, row_half, i);
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first_out + tile_column(local % THREADS_X, column_half);
                for (var j = 0u; j < 4u; j++) {
                    let out = column + j;
                    if row < extent.rows && out < layer.outputs {
                        let index = output_index(network, row, out);
                        let value = values[j] + parameters[bias_index(network, out)];
                        if ADDS == 1u {
                            destination[index] = skip[index] + value;
                        } else {
                            destination[index] = value;
                        }
                    }
                }
            }
        }
    }
}
