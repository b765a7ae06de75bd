// What all fused kernels share: a workgroup carries ROWS rows through a flow, its activations in workgroup memory.
//
// Equation:  a coupling's networks y = W_K · act(… act(W_1 · (mask ⊙ x) + b_1) …) + b_K, then the bijector on what the
//            mask does not keep; log_det is summed over couplings.
// Threads:   products as in fused_product.wgsl. Between them a thread owns quads of four features of a row, the same
//            ones throughout: `spots`.
// Data:      packed: every weight twice, [in, out] and [out, in], edges padded with zeros to multiples of 4, and biases;
//            masks [L, 4 · QUADS], padded with 1. memory: see its areas below.
// Order:     a barrier after each layer; sums run over increasing depth, shares of the depth in order.
// Twin:      src/cpu/pass.rs. Constants from src/gpu/fused/shape.rs: ROWS, THREADS, QUADS, SLICES, WIDTH, TILES, ….

const SPOTS: u32 = ROWS * QUADS;
// Areas of memory, in quads: the rows at hand, or their gradient; their kept features; the networks' outputs in SLICES
// shares of the depth, or the gradients of their inputs; activation tiles.
const AT_ROWS: u32 = 0u;
const AT_KEPT: u32 = SPOTS;
const AT_RAW: u32 = 2u * SPOTS;
const AT_TILES: u32 = AT_RAW + 2u * SLICES * SPOTS;
const TILE_SIZE: u32 = ROWS * WIDTH;
const AT_END: u32 = AT_TILES + TILES * TILE_SIZE;

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> masks: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;

// Sums of the couplings' log-determinants, spot by spot.
var<workgroup> log_dets: array<f32, SPOTS>;

fn tile_at(index: u32) -> u32 {
    return AT_TILES + index % TILES * TILE_SIZE;
}

// Layer `layer` of a network whose packed weights begin at `base`: hidden layers from tile to tile, the last one into
// the network's shares.
fn layer_product(base: u32, network: u32, layer: u32, source: u32, destination: u32, mode: u32) -> Product {
    let span = fused.spans[layer];
    var task = Product(
        source, span.input_quads, base + span.transposed, span.output_quads, base + span.bias, destination, mode, 1u,
    );
    if layer + 1u == fused.depth {
        task.bias = NO_BIAS;
        task.destination = AT_RAW + network * SLICES * SPOTS;
        task.mode = PLAIN;
        task.slices = SLICES;
    }
    return task;
}

// Both networks of a coupling on the kept features, into AT_RAW. Layers take turns with the tiles, so that none writes
// what a slower thread may still read.
fn conditioner(local: u32, transform: u32) {
    for (var place = 0u; place < 2u * fused.depth; place++) {
        let network = place / fused.depth;
        let layer = place % fused.depth;
        let base = (2u * transform + network) * fused.packed_stride;
        let source = select(tile_at(place - 1u), AT_KEPT, layer == 0u);
        multiply(local, layer_product(base, network, layer, source, tile_at(place), ACTIVATED));
        workgroupBarrier();
    }
}

// What a network left at a spot: the sum of its shares.
fn raw_sum(network: u32, spot: u32) -> vec4<f32> {
    var sum = memory[AT_RAW + network * SLICES * SPOTS + spot];
    for (var slice = 1u; slice < SLICES; slice++) {
        sum += memory[AT_RAW + (network * SLICES + slice) * SPOTS + spot];
    }
    return sum;
}

// A network's output at a spot: raw log-scales (network 0) or shifts (1).
fn raw_output(transform: u32, network: u32, spot: u32) -> vec4<f32> {
    let bias = (2u * transform + network) * fused.packed_stride + fused.spans[fused.depth - 1u].bias;
    return packed[bias + spot % QUADS] + raw_sum(network, spot);
}

// Which of a spot's features a coupling keeps; those beyond the last feature count as kept.
fn kept(transform: u32, spot: u32) -> vec4<bool> {
    return masks[transform * QUADS + spot % QUADS] == vec4<f32>(1.0);
}

// The bijector on one spot: value and log-determinant.
fn move_spot(transform: u32, spot: u32, inverse: bool) {
    let value = memory[AT_ROWS + spot];
    let o = raw_output(transform, 0u, spot);
    let t = raw_output(transform, 1u, spot);
    let keeps = kept(transform, spot);
    let m0 = moved(value.x, o.x, t.x, inverse);
    let m1 = moved(value.y, o.y, t.y, inverse);
    let m2 = moved(value.z, o.z, t.z, inverse);
    let m3 = moved(value.w, o.w, t.w, inverse);
    memory[AT_ROWS + spot] = select(vec4<f32>(m0.x, m1.x, m2.x, m3.x), value, keeps);
    let shares = select(vec4<f32>(m0.y, m1.y, m2.y, m3.y), vec4<f32>(), keeps);
    log_dets[spot] += (shares.x + shares.y) + (shares.z + shares.w);
}

fn moved(value: f32, raw: f32, shift: f32, inverse: bool) -> vec2<f32> {
    if inverse {
        return affine_inverse(value, raw, shift, fused.bound);
    }
    return affine_forward(value, raw, shift, fused.bound);
}

// Four features of a row that lies in a table of whole rows, zero beyond the last feature.
fn quad_at(row: u32, quad: u32) -> vec2<u32> {
    let first = 4u * quad;
    return vec2<u32>(row * fused.features + first, min(4u, fused.features - first));
}

// The rows through one coupling.
fn carry(local: u32, transform: u32, inverse: bool) {
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        memory[AT_KEPT + spot] = select(vec4<f32>(), memory[AT_ROWS + spot], kept(transform, spot));
    }
    workgroupBarrier();
    conditioner(local, transform);
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        move_spot(transform, spot, inverse);
    }
}

// Of a quad of features, those that are modelled; the others are 0.
fn modelled_part(value: vec4<f32>, quad: u32) -> vec4<f32> {
    let feature = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), value, feature < vec4<u32>(fused.modelled));
}

// log_det (x) and log p (y) of a row that has become latent.
fn density_of(row: u32) -> vec2<f32> {
    const HALF_LN_TAU = 0.9189385332046727;
    var log_det = 0.0;
    var squares = 0.0;
    for (var spot = row * QUADS; spot < (row + 1u) * QUADS; spot++) {
        let z = modelled_part(memory[AT_ROWS + spot], spot % QUADS);
        log_det += log_dets[spot];
        squares += (z.x * z.x + z.y * z.y) + (z.z * z.z + z.w * z.w);
    }
    return vec2<f32>(log_det, log_det - 0.5 * squares - f32(fused.modelled) * HALF_LN_TAU);
}
