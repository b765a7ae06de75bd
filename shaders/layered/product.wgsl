// The forward product of a linear map: inputs times weights, both as the text before yields them.

// A tile of h · Wᵀ.
fn forward_product(local: u32, network: u32, first_row: u32, first_out: u32) -> Tile {
    let tx = local % THREADS_X;
    let ty = local / THREADS_X;
    let busy = first_row + tile_row(ty, 0u, 0u) < extent.rows && first_out + tile_column(tx, 0u) < layer.outputs;
    var tile = Tile();
    for (var start = 0u; start < layer.inputs; start += TILE_DEPTH) {
        for (var i = local; i < TILE_DEPTH * QUADS_A; i += THREADS) {
            let k = start + i % TILE_DEPTH;
            let quad = i / TILE_DEPTH;
            let row = first_row + 4u * quad;
            tile_a[(i % TILE_DEPTH) * LINE_A + quad] = vec4<f32>(
                input(network, row, k, extent.rows),
                input(network, row + 1u, k, extent.rows),
                input(network, row + 2u, k, extent.rows),
                input(network, row + 3u, k, extent.rows),
            );
        }
        for (var i = local; i < TILE_DEPTH * QUADS_B; i += THREADS) {
            let k = start + i % TILE_DEPTH;
            let quad = i / TILE_DEPTH;
            let out = first_out + 4u * quad;
            tile_b[(i % TILE_DEPTH) * LINE_B + quad] = vec4<f32>(
                weight(network, out, k),
                weight(network, out + 1u, k),
                weight(network, out + 2u, k),
                weight(network, out + 3u, k),
            );
        }
        workgroupBarrier();
        if busy {
            tile = multiply_tiles(tile, tx, ty, min(TILE_DEPTH, layer.inputs - start));
        }
        workgroupBarrier();
    }
    return tile;
}
