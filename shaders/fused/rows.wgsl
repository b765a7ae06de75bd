// What all fused kernels share: a workgroup carries ROWS rows through a flow, its activations in workgroup memory.
//
// Equation:  a coupling's networks θ = W_K · act(… act(W_1 · (mask ⊙ x) + b_1) …) + b_K, then the bijector on what the
//            mask does not keep; an actnorm z = (x − b) · exp(−s); log_det is summed over transforms.
// Threads:   products as in product.wgsl. Between them a thread owns quads of four features of a row, the same
//            ones throughout: `row_quads`.
// Data:      packed: every weight twice, [in, out] and [out, in], edges padded with zeros to multiples of 4, and biases;
//            masks [L, 4 · QUADS], padded with 1. memory: see its areas below.
// Order:     a barrier after each layer; sums run over increasing depth, shares of the depth in order.
// Twin:      src/cpu/pass.rs. Constants from src/gpu/fused/shape.rs: ROWS, THREADS, QUADS, SLICES, WIDTH, TILES, ….

const ROW_QUADS: u32 = ROWS * QUADS;
// Areas of memory, in quads: the rows at hand, or their gradient; their kept features; the networks' outputs in SLICES
// shares of the depth, or the gradients of their inputs; activation tiles.
const AT_ROWS: u32 = 0u;
const AT_KEPT: u32 = ROW_QUADS;
const AT_THETA: u32 = 2u * ROW_QUADS;
const AT_TILES: u32 = AT_THETA + PARAMETERS * SLICES * ROW_QUADS;
const TILE_SIZE: u32 = ROWS * WIDTH;
const AT_END: u32 = AT_TILES + TILES * TILE_SIZE;

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> masks: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;

// Sums of log-determinants, quad by quad.
var<workgroup> log_dets: array<f32, ROW_QUADS>;

fn tile_at(index: u32) -> u32 {
    return AT_TILES + index % TILES * TILE_SIZE;
}

// Layer `layer` of a network whose packed weights begin at `base`: hidden layers from tile to tile, the last one into
// the network's shares.
fn layer_product(
    step: Step, base: u32, network: u32, layer: u32, source: u32, destination: u32, mode: u32,
) -> Product {
    let span = fused.spans[step.spans + layer];
    var task = Product(
        source, span.input_quads, base + span.transposed, span.output_quads, base + span.bias, destination, mode, 1u,
    );
    if layer + 1u == step.depth {
        task.bias = NO_BIAS;
        task.destination = AT_THETA + network * SLICES * ROW_QUADS;
        task.mode = PLAIN;
        task.slices = SLICES;
    }
    return task;
}

// All networks of a coupling on the kept features, into AT_THETA. Layers take turns with the tiles, so that none writes
// what a slower thread may still read.
fn conditioner(local: u32, step: Step) {
    for (var place = 0u; place < step.networks * step.depth; place++) {
        let network = place / step.depth;
        let layer = place % step.depth;
        let base = step.weights + network * step.weights_stride;
        let source = select(tile_at(place - 1u), AT_KEPT, layer == 0u);
        multiply(local, layer_product(step, base, network, layer, source, tile_at(place), ACTIVATED));
        workgroupBarrier();
    }
}

// What a network left at a quad: the sum of its shares.
fn network_sum(network: u32, quad: u32) -> vec4<f32> {
    var sum = memory[AT_THETA + network * SLICES * ROW_QUADS + quad];
    for (var slice = 1u; slice < SLICES; slice++) {
        sum += memory[AT_THETA + (network * SLICES + slice) * ROW_QUADS + quad];
    }
    return sum;
}

// Number `k` of θ at a quad.
fn theta_number(step: Step, k: u32, quad: u32) -> vec4<f32> {
    let bias = step.weights + k * step.weights_stride + fused.spans[step.spans + step.depth - 1u].bias;
    return packed[bias + quad % QUADS] + network_sum(k, quad);
}

// θ of a quad, number by number.
fn theta_quad(step: Step, quad: u32) -> array<vec4<f32>, PARAMETERS> {
    var numbers: array<vec4<f32>, PARAMETERS>;
    for (var k = 0u; k < PARAMETERS; k++) {
        numbers[k] = theta_number(step, k, quad);
    }
    return numbers;
}

// θ of one feature of a quad.
fn theta_lane(numbers: ptr<function, array<vec4<f32>, PARAMETERS>>, lane: u32) -> Theta {
    var theta: Theta;
    for (var k = 0u; k < PARAMETERS; k++) {
        theta[k] = (*numbers)[k][lane];
    }
    return theta;
}

// Which of a quad's features a coupling keeps; those beyond the last feature count as kept.
fn kept(step: Step, quad: u32) -> vec4<bool> {
    return masks[step.mask + quad % QUADS] == vec4<f32>(1.0);
}

fn bijector(value: f32, theta: Theta, bound: f32, inverse: bool) -> vec2<f32> {
    if inverse {
        return bijector_inverse(value, theta, bound);
    }
    return bijector_forward(value, theta, bound);
}

// The bijector on one quad: value and log-determinant.
fn transform_quad(step: Step, quad: u32, inverse: bool) {
    let value = memory[AT_ROWS + quad];
    var numbers = theta_quad(step, quad);
    let keeps = kept(step, quad);
    let r0 = bijector(value.x, theta_lane(&numbers, 0u), step.bound, inverse);
    let r1 = bijector(value.y, theta_lane(&numbers, 1u), step.bound, inverse);
    let r2 = bijector(value.z, theta_lane(&numbers, 2u), step.bound, inverse);
    let r3 = bijector(value.w, theta_lane(&numbers, 3u), step.bound, inverse);
    memory[AT_ROWS + quad] = select(vec4<f32>(r0.x, r1.x, r2.x, r3.x), value, keeps);
    let shares = select(vec4<f32>(r0.y, r1.y, r2.y, r3.y), vec4<f32>(), keeps);
    log_dets[quad] += (shares.x + shares.y) + (shares.z + shares.w);
}

fn exp_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(exp_accurate(x.x), exp_accurate(x.y), exp_accurate(x.z), exp_accurate(x.w));
}

// An actnorm on one quad. Its packed numbers are zero for the context and beyond the last feature.
fn normalise_quad(step: Step, quad: u32, inverse: bool) {
    let value = memory[AT_ROWS + quad];
    let shift = packed[step.weights + quad % QUADS];
    let s = packed[step.weights + QUADS + quad % QUADS];
    let sum = (s.x + s.y) + (s.z + s.w);
    if inverse {
        memory[AT_ROWS + quad] = value * exp_quad(s) + shift;
        log_dets[quad] += sum;
    } else {
        memory[AT_ROWS + quad] = (value - shift) * exp_quad(-s);
        log_dets[quad] -= sum;
    }
}

// Four features of a row that lies in a table of whole rows, zero beyond the last feature.
fn quad_at(row: u32, quad: u32) -> vec2<u32> {
    let first = 4u * quad;
    return vec2<u32>(row * fused.features + first, min(4u, fused.features - first));
}

// The rows through one transform.
fn transform_rows(local: u32, transform: u32, inverse: bool) {
    let step = fused.steps[transform];
    if step.kind == ACTNORM {
        for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
            normalise_quad(step, quad, inverse);
        }
        return;
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = select(vec4<f32>(), memory[AT_ROWS + quad], kept(step, quad));
    }
    workgroupBarrier();
    conditioner(local, step);
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        transform_quad(step, quad, inverse);
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
    for (var quad = row * QUADS; quad < (row + 1u) * QUADS; quad++) {
        let z = modelled_part(memory[AT_ROWS + quad], quad % QUADS);
        log_det += log_dets[quad];
        squares += (z.x * z.x + z.y * z.y) + (z.z * z.z + z.w * z.w);
    }
    return vec2<f32>(log_det, log_det - 0.5 * squares - f32(fused.modelled) * HALF_LN_TAU);
}
