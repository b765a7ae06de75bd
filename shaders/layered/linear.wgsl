// Linear layers of the conditioners, forward: both networks of a coupling in one dispatch.
//
// Equation:  y = h · Wᵀ + b, where h is the activated input act(source), or the kept features in the first layer.
// Threads:   a workgroup makes a tile of y (tile.wgsl): x counts its columns, y its rows, z networks.
// Data:      source [2, capacity, inputs] pre-activations ([capacity, D] in the first layer); destination
//            [2, capacity, outputs] pre-activations: what activates them is the layer that reads them, because the
//            backward pass wants them as they are and storing both would move more bytes.
// Order:     two barriers a depth tile; sums over increasing depth.
// Twin:      linear_forward in src/cpu/reference/linear.rs

@group(0) @binding(5) var<storage, read_write> destination: array<f32>;

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
                        destination[output_index(network, row, out)] = values[j] + parameters[bias_index(network, out)];
                    }
                }
            }
        }
    }
}
