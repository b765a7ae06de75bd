// What all fused kernels share: a workgroup carries ROWS rows through a flow, its activations in workgroup memory.
//
// Equation:  a coupling's networks y = W_K · act(… act(W_1 · (mask ⊙ x) + b_1) …) + b_K, then the bijector on what the
//            mask does not keep; log_det is summed over couplings.
// Threads:   products: a thread makes 4 rows × 4 outputs, or in a thin last layer a share of the depth of 1 row × 4.
//            Between products a thread owns quads of four features of a row, the same ones throughout: `spots`.
// Data:      packed: every weight twice, [in, out] and [out, in], edges padded with zeros to multiples of 4, and biases;
//            masks [L, 4 · QUADS], padded with 1. memory: see its areas below.
// Order:     a barrier after each layer; sums run over increasing depth, shares of the depth in order.
// Twin:      src/cpu/pass.rs. Constants (src/gpu/fused/shape.rs): ROWS, THREADS, QUADS, SLICES, WIDTH, TILES, ACTIVATION.

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

struct Block {
    row0: vec4<f32>,
    row1: vec4<f32>,
    row2: vec4<f32>,
    row3: vec4<f32>,
}

fn activate_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        activate(ACTIVATION, x.x), activate(ACTIVATION, x.y), activate(ACTIVATION, x.z), activate(ACTIVATION, x.w),
    );
}

// Four rows of the tile at `source`, `depth` quads each, times four neighbouring columns of a packed matrix.
fn product(source: u32, depth: u32, matrix: u32, quads: u32) -> Block {
    var block = Block();
    for (var k = 0u; k < depth; k++) {
        let at = matrix + 4u * k * quads;
        let w0 = packed[at];
        let w1 = packed[at + quads];
        let w2 = packed[at + 2u * quads];
        let w3 = packed[at + 3u * quads];
        let a0 = memory[source + k];
        let a1 = memory[source + depth + k];
        let a2 = memory[source + 2u * depth + k];
        let a3 = memory[source + 3u * depth + k];
        block.row0 += a0.x * w0 + a0.y * w1 + a0.z * w2 + a0.w * w3;
        block.row1 += a1.x * w0 + a1.y * w1 + a1.z * w2 + a1.w * w3;
        block.row2 += a2.x * w0 + a2.y * w1 + a2.z * w2 + a2.w * w3;
        block.row3 += a3.x * w0 + a3.y * w1 + a3.z * w2 + a3.w * w3;
    }
    return block;
}

// The tile at `source` times a packed matrix that is as wide as the features, into the shares of AT_RAW of a network.
fn thin_product(local: u32, source: u32, depth: u32, matrix: u32, network: u32) {
    let destination = AT_RAW + network * SLICES * SPOTS;
    let share = (depth + SLICES - 1u) / SLICES;
    for (var item = local; item < SLICES * SPOTS; item += THREADS) {
        let begin = item / SPOTS * share;
        let row = item % SPOTS / QUADS;
        var sum = vec4<f32>();
        for (var k = begin; k < min(begin + share, depth); k++) {
            let at = matrix + 4u * k * QUADS + item % QUADS;
            let a = memory[source + row * depth + k];
            sum += a.x * packed[at] + a.y * packed[at + QUADS] + a.z * packed[at + 2u * QUADS]
                + a.w * packed[at + 3u * QUADS];
        }
        memory[destination + item] = sum;
    }
}

// A hidden layer's pre-activations of 4 rows × 4 outputs.
fn hidden_block(source: u32, span: Span, base: u32, rows: u32, quad: u32) -> Block {
    let begin = source + 4u * rows * span.input_quads;
    var block = product(begin, span.input_quads, base + span.transposed + quad, span.output_quads);
    let bias = packed[base + span.bias + quad];
    block.row0 += bias;
    block.row1 += bias;
    block.row2 += bias;
    block.row3 += bias;
    return block;
}

fn put_block(destination: u32, stride: u32, block: Block) {
    memory[destination] = block.row0;
    memory[destination + stride] = block.row1;
    memory[destination + 2u * stride] = block.row2;
    memory[destination + 3u * stride] = block.row3;
}

fn put_activated(destination: u32, stride: u32, block: Block) {
    memory[destination] = activate_quad(block.row0);
    memory[destination + stride] = activate_quad(block.row1);
    memory[destination + 2u * stride] = activate_quad(block.row2);
    memory[destination + 3u * stride] = activate_quad(block.row3);
}

fn tile_at(index: u32) -> u32 {
    return AT_TILES + index % TILES * TILE_SIZE;
}

// Both networks of a coupling on the kept features, into AT_RAW. Layers take turns with the tiles, so that none writes
// what a slower thread may still read; the last layer of the first network shares its barrier with the second's first.
fn conditioner(local: u32, transform: u32) {
    for (var network = 0u; network < 2u; network++) {
        let base = (2u * transform + network) * fused.packed_stride;
        var source = AT_KEPT;
        for (var layer = 0u; layer + 1u < fused.depth; layer++) {
            let span = fused.spans[layer];
            let destination = tile_at(network * (fused.depth - 1u) + layer);
            for (var item = local; item < ROWS / 4u * span.output_quads; item += THREADS) {
                let rows = item / span.output_quads;
                let quad = item % span.output_quads;
                let block = hidden_block(source, span, base, rows, quad);
                put_activated(destination + 4u * rows * span.output_quads + quad, span.output_quads, block);
            }
            workgroupBarrier();
            source = destination;
        }
        let last = fused.spans[fused.depth - 1u];
        thin_product(local, source, last.input_quads, base + last.transposed, network);
    }
    workgroupBarrier();
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

// log_det (x) and log p (y) of a row that has become latent.
fn density_of(row: u32) -> vec2<f32> {
    const HALF_LN_TAU = 0.9189385332046727;
    var log_det = 0.0;
    var squares = 0.0;
    for (var spot = row * QUADS; spot < (row + 1u) * QUADS; spot++) {
        let z = memory[AT_ROWS + spot];
        log_det += log_dets[spot];
        squares += (z.x * z.x + z.y * z.y) + (z.z * z.z + z.w * z.w);
    }
    return vec2<f32>(log_det, log_det - 0.5 * squares - f32(fused.features) * HALF_LN_TAU);
}
