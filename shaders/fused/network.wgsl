// Layers of the networks of a transform as products of the block of rows: those of a coupling's conditioner, and the two
// triangular matrices of an LU layer.
//
// Equation:  y_l = W_l · h_(l−1) + b_l, plus y_(l−2) where layer l says so; h_l = act(y_l), or y_l where layer l + 1 takes
//            it as it is.
// Threads:   see product.wgsl. Network k belongs to team k % TEAMS: networks of one shape go side by side through the same
//            layers, so that all threads meet at every barrier. A team without a network has no items.
// Data:      layer 0 reads AT_KEPT, hidden layers go from tile to tile, the last layer leaves slices at AT_THETA. The text
//            with the entry point says whether tiles hold h (ACTIVE_TILES) or y.
// Order:     a barrier after each layer.
// Twin:      src/cpu/reference/linear.rs. Precedes coupling.wgsl and lu.wgsl.

// The first tile of a network's team.
fn tiles_of(network: u32) -> u32 {
    return AT_TILES + network % TEAMS * (TILES * TILE_SIZE);
}

// The tile of what hidden layer `layer` gives out. Layers take turns with the tiles, so that none writes what a slower
// thread may still read. Unless tiles hold activations, tile 0 is the current activations and takes no turn.
fn tile_of(network: u32, layer: u32) -> u32 {
    return tiles_of(network) + select(1u + layer % (TILES - 1u), layer % TILES, ACTIVE_TILES) * TILE_SIZE;
}

// What goes into layer `layer`: kept features, the current activations, or a tile as it is.
fn input_of(transform: FusedTransform, network: u32, layer: u32) -> u32 {
    if layer == 0u || transform.kind == LU {
        return AT_KEPT;
    }
    let at_hand = !ACTIVE_TILES && fused.spans[transform.spans + layer].activated == 1u;
    return select(tile_of(network, layer - 1u), tiles_of(network), at_hand);
}

// Brings what goes into layer `layer` to hand, where its input is not there yet.
fn prepare_input(local: u32, member: u32, transform: FusedTransform, network: u32, layer: u32) {
    if transform.kind == LU {
        lu_input(local, transform, layer);
        return;
    }
    let span = fused.spans[transform.spans + layer];
    if ACTIVE_TILES || span.activated == 0u {
        return;
    }
    let source = tile_of(network, layer - 1u);
    for (var item = member; item < ROWS * span.input_quads; item += TEAM_THREADS) {
        memory[tiles_of(network) + item] = activate_quad(memory[source + item]);
    }
    workgroupBarrier();
}

// Layer `layer` of a network whose packed weights begin at `base`: hidden layers into a tile, the last one into the
// network's slices.
fn layer_product(transform: FusedTransform, base: u32, network: u32, layer: u32) -> Product {
    let span = fused.spans[transform.spans + layer];
    if transform.kind == LU {
        return Product(
            AT_KEPT, QUADS, base + span.transposed, QUADS, NO_BIAS, AT_THETA, Finish(PLAIN, NOTHING), SLICES,
        );
    }
    var task = Product(
        input_of(transform, network, layer), span.input_quads, base + span.transposed, span.output_quads,
        base + span.bias, tile_of(network, layer), Finish(select(PLAIN, ACTIVATED, ACTIVE_TILES), NOTHING), 1u,
    );
    if span.skips == 1u {
        task.finish.added = tile_of(network, layer - 2u) - task.destination;
    }
    if layer + 1u == transform.depth {
        task.bias = NO_BIAS;
        task.destination = AT_THETA + network * OUTPUT_SLICES * ROWS * span.output_quads;
        task.finish.mode = PLAIN;
        task.slices = OUTPUT_SLICES;
    }
    return task;
}

// All networks of a transform on AT_KEPT, into AT_THETA.
fn run_networks(local: u32, transform: FusedTransform) {
    let rounds = (transform.networks + TEAMS - 1u) / TEAMS;
    for (var place = 0u; place < rounds * transform.depth; place++) {
        let first = place / transform.depth * TEAMS;
        let network = first + local / TEAM_THREADS;
        let member = member_of(local, first, transform.networks);
        let layer = place % transform.depth;
        let base = transform.weights + network * transform.weights_stride;
        prepare_input(local, member, transform, network, layer);
        multiply(member, layer_product(transform, base, network, layer));
        workgroupBarrier();
    }
}

