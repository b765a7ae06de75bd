// The forward product of a linear map: inputs times weights, both as the text before yields them.

// A tile of h · Wᵀ.
fn forward_product(local: u32, network: u32, first_row: u32, first_out: u32) -> Tile {
    let tx = local % THREADS_X;
    let ty = local / THREADS_X;
    let busy = first_row + tile_row(ty, 0u, 0u) < extent.rows && first_out + tile_column(tx, 0u) < layer.outputs;
    var tile = Tile();
    var rows: array<vec4<u32>, LOADS_A>;
    for (var load = 0u; load < LOADS_A; load++) {
        rows[load] = input_rows(network, first_row + 4u * along_depth(local + load * THREADS).y);
    }
    var outs: array<vec4<u32>, LOADS_B>;
    for (var load = 0u; load < LOADS_B; load++) {
        outs[load] = weight_rows(network, first_out + 4u * along_depth(local + load * THREADS).y);
    }
    for (var start = 0u; start < layer.inputs; start += TILE_DEPTH) {
        for (var load = 0u; load < LOADS_A; load++) {
            let item = local + load * THREADS;
            if EVEN_A || item < ITEMS_A {
                let place = along_depth(item);
                let k = start + place.x;
                put_a(place, inputs_at(rows[load] + input_column(k), k < layer.inputs));
            }
        }
        for (var load = 0u; load < LOADS_B; load++) {
            let item = local + load * THREADS;
            if EVEN_B || item < ITEMS_B {
                let place = along_depth(item);
                let k = start + place.x;
                let out = first_out + 4u * place.y + vec4<u32>(0u, 1u, 2u, 3u);
                put_b(place, weights_at(outs[load] + input_column(k), out, vec4<u32>(k), k < layer.inputs));
            }
        }
        workgroupBarrier();
        if busy {
            tile = multiply_tiles(tile, tx, ty, min(TILE_DEPTH, layer.inputs - start));
        }
        workgroupBarrier();
    }
    return tile;
}
