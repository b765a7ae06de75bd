// Back through one network of a coupling, its activations computed anew: the heart of fused_gradient.
//
// Equation:  with h_l = act(y_l), y_l = W_l · h_(l−1) + b_l: d_W_l = d_y_lᵀ · h_(l−1), d_b_l = Σ_rows d_y_l,
//            d_y_(l−1) = (d_y_l · W_l) ⊙ act'(y_(l−1)).
// Threads:   products as in fused.wgsl; a weight's gradient in blocks of 4 outputs × 4 inputs.
// Data:      tile 0 holds the activations that go into a layer, tile l the pre-activations y_l, which d_y_l replaces in
//            place: its product needs only d_y_(l+1), and no other thread reads what it writes.
// Order:     a barrier after each step; sums over increasing row.
// Twin:      src/cpu/linear.rs. Follows fused.wgsl; the text behind it has partials and memory.

// d_W and d_b of a layer from the tile of d_y and that of its input, into the group's slot, or added to it.
fn put_weight_gradient(local: u32, delta: u32, source: u32, span: Span, at: u32, add: bool) {
    for (var item = local; item < span.output_quads * span.input_quads; item += THREADS) {
        let column = item % span.input_quads;
        let out = item / span.input_quads;
        var block = Block();
        for (var row = 0u; row < ROWS; row++) {
            let d = memory[delta + row * span.output_quads + out];
            let h = memory[source + row * span.input_quads + column];
            block.row0 += d.x * h;
            block.row1 += d.y * h;
            block.row2 += d.z * h;
            block.row3 += d.w * h;
        }
        put_weights(span, at, 4u * out, 4u * column, block.row0, add);
        put_weights(span, at, 4u * out + 1u, 4u * column, block.row1, add);
        put_weights(span, at, 4u * out + 2u, 4u * column, block.row2, add);
        put_weights(span, at, 4u * out + 3u, 4u * column, block.row3, add);
    }
    for (var out = local; out < span.output_quads; out += THREADS) {
        var sum = vec4<f32>();
        for (var row = 0u; row < ROWS; row++) {
            sum += memory[delta + row * span.output_quads + out];
        }
        let bias = at + span.weight + span.outputs * span.inputs;
        for (var j = 0u; j < min(4u, span.outputs - 4u * out); j++) {
            put_partial(bias + 4u * out + j, sum[j], add);
        }
    }
}

fn put_weights(span: Span, at: u32, out: u32, column: u32, values: vec4<f32>, add: bool) {
    if out < span.outputs {
        let first = at + span.weight + out * span.inputs + column;
        put_partial(first, values.x, add);
        if column + 1u < span.inputs {
            put_partial(first + 1u, values.y, add);
        }
        if column + 2u < span.inputs {
            put_partial(first + 2u, values.z, add);
        }
        if column + 3u < span.inputs {
            put_partial(first + 3u, values.w, add);
        }
    }
}

fn put_partial(at: u32, value: f32, add: bool) {
    if add {
        partials[at] += value;
    } else {
        partials[at] = value;
    }
}

fn slope_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        activation_slope(ACTIVATION, x.x),
        activation_slope(ACTIVATION, x.y),
        activation_slope(ACTIVATION, x.z),
        activation_slope(ACTIVATION, x.w),
    );
}

// act(y_layer) into tile 0, for layer ≥ 1.
fn activate_tile(local: u32, layer: u32) {
    let source = tile_at(layer);
    for (var item = local; item < ROWS * fused.spans[layer - 1u].output_quads; item += THREADS) {
        memory[AT_TILES + item] = activate_quad(memory[source + item]);
    }
    workgroupBarrier();
}

// Pre-activations of every hidden layer into tiles 1 and up, and the last one's activations into tile 0.
fn recompute(local: u32, base: u32) {
    var source = AT_KEPT;
    for (var layer = 0u; layer + 1u < fused.depth; layer++) {
        let span = fused.spans[layer];
        let destination = tile_at(layer + 1u);
        for (var item = local; item < ROWS / 4u * span.output_quads; item += THREADS) {
            let rows = item / span.output_quads;
            let quad = item % span.output_quads;
            let block = hidden_block(source, span, base, rows, quad);
            put_block(destination + 4u * rows * span.output_quads + quad, span.output_quads, block);
        }
        workgroupBarrier();
        activate_tile(local, layer + 1u);
        source = AT_TILES;
    }
}

// d_y of a hidden layer in place of its y, from the d_y above it.
fn back_through(local: u32, delta: u32, span: Span, base: u32, tile: u32) {
    for (var item = local; item < ROWS / 4u * span.input_quads; item += THREADS) {
        let rows = item / span.input_quads;
        let quad = item % span.input_quads;
        let begin = delta + 4u * rows * span.output_quads;
        let block = product(begin, span.output_quads, base + span.natural + quad, span.input_quads);
        let at = tile + 4u * rows * span.input_quads + quad;
        memory[at] = block.row0 * slope_quad(memory[at]);
        let at1 = at + span.input_quads;
        memory[at1] = block.row1 * slope_quad(memory[at1]);
        let at2 = at1 + span.input_quads;
        memory[at2] = block.row2 * slope_quad(memory[at2]);
        let at3 = at2 + span.input_quads;
        memory[at3] = block.row3 * slope_quad(memory[at3]);
    }
}

fn network_backward(local: u32, transform: u32, network: u32, group: u32, add: bool) {
    let base = (2u * transform + network) * fused.packed_stride;
    let at = group * fused.rules.parameters + (2u * transform + network) * fused.network_stride;
    recompute(local, base);
    var delta = AT_D_RAW + network * SPOTS;
    for (var layer = fused.depth - 1u; layer > 0u; layer--) {
        let span = fused.spans[layer];
        if layer + 1u < fused.depth {
            activate_tile(local, layer);
        }
        put_weight_gradient(local, delta, AT_TILES, span, at, add);
        back_through(local, delta, span, base, tile_at(layer));
        workgroupBarrier();
        delta = tile_at(layer);
    }
    let span = fused.spans[0];
    put_weight_gradient(local, delta, AT_KEPT, span, at, add);
    if transform > 0u {
        thin_product(local, delta, span.output_quads, base + span.natural, network);
    }
    // The next network overwrites the tiles.
    workgroupBarrier();
}
