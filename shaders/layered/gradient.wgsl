// What the backward kernels of a linear map share: tiles of its two gradients' products. A dispatch makes both gradients,
// which need the same d_output and source and not each other: its first input_groups workgroups take d_h = d_y · W, the
// others d_W = d_yᵀ · h and d_b = Σ_rows d_y, split by rows.
// The text before knows where the operands lie, and where the gradients of weight and bias go.

@group(0) @binding(5) var<storage, read> d_output: array<f32>;
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

// Four numbers of d_y, or zeros where they do not count.
fn d_outputs_at(at: vec4<u32>, counts: bool) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(d_output[at.x], d_output[at.y], d_output[at.z], d_output[at.w]), counts);
}

// Adds a tile of d_y · W to `product`.
fn add_input_product(product: Tile, local: u32, network: u32, first_row: u32, first_column: u32) -> Tile {
    let tx = local % THREADS_X;
    let ty = local / THREADS_X;
    let busy = first_row + tile_row(ty, 0u, 0u) < extent.rows && first_column + tile_column(tx, 0u) < layer.inputs;
    var tile = product;
    var rows: array<vec4<u32>, LOADS_A>;
    for (var load = 0u; load < LOADS_A; load++) {
        rows[load] = gradient_rows(network, first_row + 4u * along_depth(local + load * THREADS).y);
    }
    let columns = input_columns(first_column + 4u * (local % QUADS_B));
    for (var start = 0u; start < layer.outputs; start += TILE_DEPTH) {
        for (var load = 0u; load < LOADS_A; load++) {
            let item = local + load * THREADS;
            if EVEN_A || item < ITEMS_A {
                let place = along_depth(item);
                let out = start + place.x;
                put_a(place, d_outputs_at(rows[load] + gradient_column(out), out < layer.outputs));
            }
        }
        for (var load = 0u; load < LOADS_B; load++) {
            let item = local + load * THREADS;
            if EVEN_B || item < ITEMS_B {
                let place = along_edge(item, QUADS_B);
                let out = start + place.x;
                let k = first_column + 4u * place.y + vec4<u32>(0u, 1u, 2u, 3u);
                put_b(place, weights_at(columns + weight_row(network, out), vec4<u32>(out), k, out < layer.outputs));
            }
        }
        workgroupBarrier();
        if busy {
            tile = multiply_tiles(tile, tx, ty, min(TILE_DEPTH, layer.outputs - start));
        }
        workgroupBarrier();
    }
    return tile;
}

// Tiles across the weight gradient: one at least, beside whose first column the bias gradient is made, even where nothing
// feeds the layer.
fn weight_tiles() -> u32 {
    return (max(layer.inputs, 1u) + TILE_COLUMNS - 1u) / TILE_COLUMNS;
}

// Tile number `group` of the weight gradient, and of the bias gradient beside its first column, to partials.
fn weight_gradient(local: u32, group: u32) {
    let tiles_x = weight_tiles();
    let tiles_y = (layer.outputs + TILE_ROWS - 1u) / TILE_ROWS;
    let network = group % NETWORKS;
    let first_column = (group / NETWORKS) % tiles_x * TILE_COLUMNS;
    let first_out = (group / NETWORKS / tiles_x) % tiles_y * TILE_ROWS;
    let split = group / NETWORKS / tiles_x / tiles_y;
    let tx = local % THREADS_X;
    let ty = local / THREADS_X;
    let busy = first_out + tile_row(ty, 0u, 0u) < layer.outputs && first_column + tile_column(tx, 0u) < layer.inputs;
    let sums_bias = first_column == 0u && tx == 0u;
    // The uniform bound keeps the barriers in uniform control flow; rows beyond the batch count as zero.
    let begin = split * layer.rows_per_split;
    let end = min(extent.rows, begin + layer.rows_per_split);
    var tile = Tile();
    var bias = vec4<f32>();
    var lower_bias = vec4<f32>();
    let outs = gradient_columns(first_out + 4u * (local % QUADS_A));
    let columns = input_columns(first_column + 4u * (local % QUADS_B));
    for (var start = 0u; start < layer.rows_per_split; start += TILE_DEPTH) {
        for (var load = 0u; load < LOADS_A; load++) {
            let item = local + load * THREADS;
            if EVEN_A || item < ITEMS_A {
                let place = along_edge(item, QUADS_A);
                let row = begin + start + place.x;
                put_a(place, d_outputs_at(outs + gradient_row(network, row), row < end));
            }
        }
        for (var load = 0u; load < LOADS_B; load++) {
            let item = local + load * THREADS;
            if EVEN_B || item < ITEMS_B {
                let place = along_edge(item, QUADS_B);
                let row = begin + start + place.x;
                put_b(place, inputs_at(columns + input_row(network, row), row < end));
            }
        }
        workgroupBarrier();
        if busy {
            tile = multiply_tiles(tile, tx, ty, TILE_DEPTH);
        }
        if sums_bias {
            for (var k = 0u; k < TILE_DEPTH; k++) {
                bias += tile_a[k * LINE_A + ROWS_OF_HALF * ty / 4u];
                if BLOCK_ROWS == 8u {
                    lower_bias += tile_a[k * LINE_A + HALF_A + ty];
                }
            }
        }
        workgroupBarrier();
    }
    for (var row_half = 0u; row_half < ROW_HALVES; row_half++) {
        for (var i = 0u; i < ROWS_OF_HALF; i++) {
            let row = tile_row(ty, row_half, i);
            let out = first_out + row;
            for (var column_half = 0u; column_half < COLUMN_HALVES; column_half++) {
                let values = tile_values(tile, row_half, i, column_half);
                let column = first_column + tile_column(tx, column_half);
                for (var j = 0u; j < 4u; j++) {
                    if out < layer.outputs && column + j < layer.inputs {
                        put_weight_gradient(network, split, out, column + j, values[j]);
                    }
                }
            }
            if sums_bias && out < layer.outputs {
                put_bias_gradient(network, split, out, select(bias, lower_bias, row_half == 1u)[row % 4u]);
            }
        }
    }
}

// Number of a workgroup on a grid of two dimensions.
fn group_number(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Workgroups that make the weight gradient; none where only that of the rows is asked for.
fn weight_groups() -> u32 {
    if FACTOR == SCORE {
        return 0u;
    }
    let tiles_x = weight_tiles();
    let tiles_y = (layer.outputs + TILE_ROWS - 1u) / TILE_ROWS;
    let splits = (layer.capacity + layer.rows_per_split - 1u) / layer.rows_per_split;
    return NETWORKS * tiles_x * tiles_y * splits;
}
