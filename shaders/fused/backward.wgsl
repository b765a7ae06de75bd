// A training step through one network of a coupling or LU layer, forward or backward: the products of fused_gradient.
//
// Equation:  with h_l = act(y_l), y_l = W_l · h_(l−1) + b_l: d_W_l = d_y_lᵀ · h_(l−1), d_b_l = Σ_rows d_y_l,
//            d_y_(l−1) = (d_y_l · W_l) ⊙ act'(y_(l−1)). Going back, activations are computed anew first.
// Threads:   teams as in network.wgsl, products as in product.wgsl; a weight's gradient in blocks of as many outputs as
//            inputs. There is one place in the text for each of the two, because compilers copy it to every place where it
//            is used.
// Data:      a tile for each hidden layer. Where h tells act' (ReLU, leaky ReLU) it holds h_l, else, and in residual
//            networks, y_l, and tile 0 the current h. Then d_y_l takes its place: its product needs d_y_(l+1), and where
//            y_l was added to y_(l+2), d_y_(l+2). Where SPARE_TILE is 1, tiles hold h, there is one more, and d_y_l takes
//            the place of h_(l+1), which no thread reads any more.
// Order:     a barrier after each product, and one between a layer's gradients and the product that overwrites what they
//            read, if it does; sums over increasing row.
// Twin:      src/cpu/reference/linear.rs. Follows rows.wgsl; the text after it has partials and memory.

// Where h tells act', tiles hold it.
const ACTIVE_TILES: bool = RESIDUAL == 0u && (ACTIVATION == RELU || ACTIVATION == LEAKY_RELU);

// From the d_y of layer `layer`, at `delta`: that of the layer below in place of what its tile holds, or in the tile after
// it, or the gradient of the features, which is cut into slices.
fn back_product(transform: FusedTransform, base: u32, network: u32, layer: u32, delta: u32) -> Product {
    let span = fused.spans[transform.spans + layer];
    var task = Product(
        delta, span.output_quads, base + span.natural, span.input_quads, NO_BIAS,
        AT_THETA + network * SLICES * ROW_QUADS, Finish(PLAIN, NOTHING), SLICES,
    );
    if layer > 0u && transform.kind != LU {
        task.destination = tile_of(network, layer - 1u) + TO_ACTIVE;
        task.finish.mode = select(PLAIN, SLOPED, span.activated == 1u);
        task.slices = 1u;
    }
    // What a layer two further on adds to its own result has that result's gradient as well.
    if layer + 1u < transform.depth && fused.spans[transform.spans + layer + 1u].skips == 1u {
        task.finish.added = tile_of(network, layer + 1u) - task.destination;
    }
    return task;
}

// Up to four quads of a row.
struct Quads {
    q0: vec4<f32>,
    q1: vec4<f32>,
    q2: vec4<f32>,
    q3: vec4<f32>,
}

// The first `count` quads of a row of a tile, at most `most`.
fn row_quads(at: u32, count: u32, most: u32) -> Quads {
    var quads = Quads();
    quads.q0 = memory[at];
    if most > 1u && count > 1u {
        quads.q1 = memory[at + 1u];
    }
    if most > 2u && count > 2u {
        quads.q2 = memory[at + 2u];
    }
    if most > 3u && count > 3u {
        quads.q3 = memory[at + 3u];
    }
    return quads;
}

// Adds one row's products: of four outputs with as many inputs as a strip is wide.
fn add_row(sum: Strip, inputs: Quads, outputs: vec4<f32>) -> Strip {
    var strip = sum;
    strip.c0 = add_outer(strip.c0, inputs.q0, outputs);
    if COLUMN_BLOCKS > 1u {
        strip.c1 = add_outer(strip.c1, inputs.q1, outputs);
    }
    if COLUMN_BLOCKS > 2u {
        strip.c2 = add_outer(strip.c2, inputs.q2, outputs);
    }
    if COLUMN_BLOCKS > 3u {
        strip.c3 = add_outer(strip.c3, inputs.q3, outputs);
    }
    return strip;
}

// A column for each output.
fn add_outer(sum: mat4x4<f32>, inputs: vec4<f32>, outputs: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        sum[0] + inputs * outputs.x, sum[1] + inputs * outputs.y, sum[2] + inputs * outputs.z, sum[3] + inputs * outputs.w,
    );
}

// d_W of a layer from the tiles of d_y and of its input, into the group's slot, or added to it: row by row, as many outputs
// as a block has rows by as many inputs as it has columns.
fn put_gradient(member: u32, delta: u32, source: u32, span: Span, slot: u32, add: bool) {
    let across = (span.input_quads + COLUMN_BLOCKS - 1u) / COLUMN_BLOCKS;
    let down = (span.output_quads + ROW_BLOCKS - 1u) / ROW_BLOCKS;
    for (var item = member; item < down * across; item += TEAM_THREADS) {
        let column = item % across * COLUMN_BLOCKS;
        let out = item / across * ROW_BLOCKS;
        let columns = span.input_quads - column;
        let outs = span.output_quads - out;
        var block = Block();
        for (var row = 0u; row < ROWS; row++) {
            let inputs = row_quads(source + row * span.input_quads + column, columns, COLUMN_BLOCKS);
            let outputs = row_quads(delta + row * span.output_quads + out, outs, ROW_BLOCKS);
            block.r0 = add_row(block.r0, inputs, outputs.q0);
            if ROW_BLOCKS > 1u {
                block.r1 = add_row(block.r1, inputs, outputs.q1);
            }
            if ROW_BLOCKS > 2u {
                block.r2 = add_row(block.r2, inputs, outputs.q2);
                block.r3 = add_row(block.r3, inputs, outputs.q3);
            }
        }
        let at = slot + span.natural + 4u * out * span.input_quads + column;
        put_weights(at, span.input_quads, columns, block.r0, add);
        if ROW_BLOCKS > 1u && outs > 1u {
            put_weights(at + 4u * span.input_quads, span.input_quads, columns, block.r1, add);
        }
        if ROW_BLOCKS > 2u && outs > 2u {
            put_weights(at + 8u * span.input_quads, span.input_quads, columns, block.r2, add);
        }
        if ROW_BLOCKS > 3u && outs > 3u {
            put_weights(at + 12u * span.input_quads, span.input_quads, columns, block.r3, add);
        }
    }
}

// The sums over rows of a tile of `quads`, by a team's last threads: where a product has fewer items than there are threads,
// they are the idle ones.
fn put_column_sums(member: u32, source: u32, quads: u32, slot: u32, add: bool) {
    if member == NO_MEMBER {
        return;
    }
    for (var quad = TEAM_THREADS - 1u - member; quad < quads; quad += TEAM_THREADS) {
        var sum = vec4<f32>();
        for (var row = 0u; row < ROWS; row++) {
            sum += memory[source + row * quads + quad];
        }
        put_partial(slot + quad, sum, add);
    }
}

fn put_weights(at: u32, stride: u32, columns: u32, strip: Strip, add: bool) {
    put_outputs(at, stride, strip.c0, add);
    if COLUMN_BLOCKS > 1u && columns > 1u {
        put_outputs(at + 1u, stride, strip.c1, add);
    }
    if COLUMN_BLOCKS > 2u && columns > 2u {
        put_outputs(at + 2u, stride, strip.c2, add);
    }
    if COLUMN_BLOCKS > 3u && columns > 3u {
        put_outputs(at + 3u, stride, strip.c3, add);
    }
}

fn put_outputs(at: u32, stride: u32, rows: mat4x4<f32>, add: bool) {
    put_partial(at, rows[0], add);
    put_partial(at + stride, rows[1], add);
    put_partial(at + 2u * stride, rows[2], add);
    put_partial(at + 3u * stride, rows[3], add);
}

fn put_partial(at: u32, value: vec4<f32>, add: bool) {
    var before = vec4<f32>();
    if add {
        before = partials[at];
    }
    partials[at] = before + value;
}

// Whether activations of hidden layers are still there from the forward pass: those of the last transform, where every
// network has tiles of its own.
fn still_active(transform: FusedTransform, index: u32) -> bool {
    return index + 1u == fused.transform_count && transform.kind == COUPLING && transform.networks <= TEAMS;
}

// Whether the product of a layer going back overwrites what the layer's gradients read.
fn overwrites(transform: FusedTransform, layer: u32) -> bool {
    let in_place = ACTIVE_TILES || fused.spans[transform.spans + layer].activated == 0u;
    return SPARE_TILE == 0u && layer > 0u && transform.kind != LU && in_place;
}

// A network for each team, from `lead` on, on AT_KEPT: its hidden layers in turn, and then its last layer. Or, going back,
// its hidden layers, and then the gradients of each layer from the last one down: places 0 to hidden − 1 go up, and hidden
// to 2 · hidden go down.
fn through_network(local: u32, index: u32, lead: u32, group: u32, first: u32, back: bool) {
    let add = first != group * ROWS;
    let transform = fused.transforms[index];
    let network = lead + local / TEAM_THREADS;
    let member = member_of(local, lead, transform.networks);
    let base = transform.weights + network * transform.weights_stride;
    let slot = group * fused.slot_quads + transform.slot + network * transform.slot_stride;
    let hidden = transform.depth - 1u;
    var delta = AT_D_THETA + network * ROWS * fused.spans[transform.spans + hidden].output_quads;
    if transform.kind == LU {
        delta = AT_ROWS;
    }
    let begin = select(0u, hidden, back && still_active(transform, index));
    for (var place = begin; place < select(hidden + 1u, 2u * hidden + 1u, back); place++) {
        let upwards = place < hidden || !back;
        let layer = select(2u * hidden - place, place, upwards);
        if transform.kind == LU && place > hidden {
            lu_between(local, transform, group, first);
        } else {
            prepare_input(local, member, transform, network, layer);
        }
        var task: Product;
        if upwards {
            task = layer_product(transform, base, network, layer);
        } else {
            let span = fused.spans[transform.spans + layer];
            put_gradient(member, delta, input_of(transform, network, layer), span, slot, add);
            let of_bias = select(delta, AT_LU, transform.kind == LU && layer == 0u);
            put_column_sums(member, of_bias, span.output_quads, slot + span.bias, add);
            if overwrites(transform, layer) {
                workgroupBarrier();
            }
            task = back_product(transform, base, network, layer, delta);
            delta = select(task.destination, AT_ROWS, transform.kind == LU);
        }
        // The gradient of the data is not wanted.
        if upwards || layer > 0u || index > 0u {
            multiply(member, task);
        }
        workgroupBarrier();
    }
}
