// What all fused kernels share: a workgroup carries ROWS rows through a flow, its activations in workgroup memory.
//
// Equation:  a coupling's networks θ = W_K · act(… act(W_1 · (mask ⊙ x) + b_1) …) + b_K, then the bijector on what the
//            mask does not keep; an actnorm z = (x − b) · exp(−s); log_det is summed over transforms.
// Threads:   products as in product.wgsl. Between them a thread owns quads of four features of a row, the same
//            ones throughout.
// Data:      packed: every weight twice, [in, out] and [out, in], edges padded with zeros to multiples of 4, and biases;
//            roles [L, 4 · QUADS], padded with KEPT. memory: see its areas below.
// Order:     a barrier after each layer; sums run over increasing depth, shares of the depth in order.
// Twin:      src/cpu/pass.rs. Constants: src/gpu/fused/shape.rs. The text with the entry point says whether tiles
//            hold activations (ACTIVE_TILES) or what they are made from.

const ROW_QUADS: u32 = ROWS * QUADS;
// Quads of the numbers of θ of a feature.
const PLACE_QUADS: u32 = (PARAMETERS + 3u) / 4u;
// Areas of memory, in quads: the rows at hand, or their gradient; their kept features; the networks' outputs in
// OUTPUT_SLICES shares of the depth, or the gradients of their inputs in SLICES shares; tiles of hidden layers.
const AT_ROWS: u32 = 0u;
const AT_KEPT: u32 = ROW_QUADS;
const AT_THETA: u32 = 2u * ROW_QUADS;
const AT_TILES: u32 = AT_THETA + ROWS * THETA;
const TILE_SIZE: u32 = ROWS * WIDTH;
const AT_END: u32 = AT_TILES + TILES * TILE_SIZE;

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> roles: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;

// Sums of log-determinants, quad by quad.
var<workgroup> log_dets: array<f32, ROW_QUADS>;

// The tile of what hidden layer `layer` gives out. Layers take turns with the tiles, so that none writes what a slower
// thread may still read. Unless tiles hold activations, tile 0 is the activations at hand and takes no turn.
fn tile_of(layer: u32) -> u32 {
    return AT_TILES + select(1u + layer % (TILES - 1u), layer % TILES, ACTIVE_TILES) * TILE_SIZE;
}

// What goes into layer `layer`: kept features, the activations at hand, or a tile as it is.
fn input_of(step: Step, layer: u32) -> u32 {
    if layer == 0u {
        return AT_KEPT;
    }
    let at_hand = !ACTIVE_TILES && fused.spans[step.spans + layer].activated == 1u;
    return select(tile_of(layer - 1u), AT_TILES, at_hand);
}

// Brings the activations that go into layer `layer` to hand, where its input is not activated yet.
fn prepare_input(local: u32, step: Step, layer: u32) {
    let span = fused.spans[step.spans + layer];
    if ACTIVE_TILES || span.activated == 0u {
        return;
    }
    let source = tile_of(layer - 1u);
    for (var item = local; item < ROWS * span.input_quads; item += THREADS) {
        memory[AT_TILES + item] = activate_quad(memory[source + item]);
    }
    workgroupBarrier();
}

// Layer `layer` of a network whose packed weights begin at `base`: hidden layers into a tile, the last one into the
// network's shares.
fn layer_product(step: Step, base: u32, network: u32, layer: u32) -> Product {
    let span = fused.spans[step.spans + layer];
    var task = Product(
        input_of(step, layer), span.input_quads, base + span.transposed, span.output_quads, base + span.bias,
        tile_of(layer), Finish(select(PLAIN, ACTIVATED, ACTIVE_TILES), NOTHING), 1u,
    );
    if span.skips == 1u {
        task.finish.added = tile_of(layer - 2u) - task.destination;
    }
    if layer + 1u == step.depth {
        task.bias = NO_BIAS;
        task.destination = AT_THETA + network * OUTPUT_SLICES * ROWS * span.output_quads;
        task.finish.mode = PLAIN;
        task.slices = OUTPUT_SLICES;
    }
    return task;
}

// All networks of a coupling on the kept features, into AT_THETA.
fn conditioner(local: u32, step: Step) {
    for (var place = 0u; place < step.networks * step.depth; place++) {
        let network = place / step.depth;
        let layer = place % step.depth;
        let base = step.weights + network * step.weights_stride;
        prepare_input(local, step, layer);
        multiply(local, layer_product(step, base, network, layer));
        workgroupBarrier();
    }
}

// A quad of a row of what a network gives out: its bias and the sum of its shares.
fn output_quad(step: Step, network: u32, row: u32, quad: u32) -> vec4<f32> {
    let last = fused.spans[step.spans + step.depth - 1u];
    let at = AT_THETA + (network * OUTPUT_SLICES * ROWS + row) * last.output_quads + quad;
    var sum = memory[at];
    for (var slice = 1u; slice < OUTPUT_SLICES; slice++) {
        sum += memory[at + slice * ROWS * last.output_quads];
    }
    return packed[step.weights + network * step.weights_stride + last.bias + quad] + sum;
}

// A transformed feature of a row, and its place among them.
struct Element {
    row: u32,
    feature: u32,
    place: u32,
}

fn element(quad: u32, lane: u32, place: u32) -> Element {
    return Element(quad / QUADS, 4u * (quad % QUADS) + lane, place);
}

// Numbers 4 · quad to 4 · quad + 3 of θ; those beyond PARAMETERS are of no meaning.
fn theta_quad(step: Step, at: Element, quad: u32) -> vec4<f32> {
    if step.networks == 1u {
        return output_quad(step, 0u, at.row, at.place * PLACE_QUADS + quad);
    }
    var numbers = vec4<f32>();
    for (var k = 4u * quad; k < min(4u * quad + 4u, PARAMETERS); k++) {
        numbers[k % 4u] = output_quad(step, k, at.row, at.feature / 4u)[at.feature % 4u];
    }
    return numbers;
}

// Puts a quad of numbers into θ.
fn set_numbers(theta: ptr<function, Theta>, quad: u32, numbers: vec4<f32>) {
    for (var k = 4u * quad; k < min(4u * quad + 4u, PARAMETERS); k++) {
        (*theta)[k] = numbers[k % 4u];
    }
}

fn theta_of(step: Step, at: Element) -> Theta {
    var theta: Theta;
    for (var quad = 0u; quad < PLACE_QUADS; quad++) {
        set_numbers(&theta, quad, theta_quad(step, at, quad));
    }
    return theta;
}

// The roles of a quad's features; those beyond the last feature count as kept.
fn roles_of(step: Step, quad: u32) -> vec4<u32> {
    return roles[step.roles + quad % QUADS];
}

// Of a quad of features, those that a coupling keeps; the others are 0.
fn kept_part(step: Step, quad: u32, value: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), value, roles_of(step, quad) == vec4<u32>(KEPT));
}

fn bijector(value: f32, theta: Theta, bound: f32, inverse: bool) -> vec2<f32> {
    if inverse {
        return bijector_inverse(value, theta, bound);
    }
    return bijector_forward(value, theta, bound);
}

// The bijector on the transformed features of a quad: values and log-determinant.
fn transform_quad(step: Step, quad: u32, inverse: bool) {
    var value = memory[AT_ROWS + quad];
    var shares = vec4<f32>();
    let places = roles_of(step, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let theta = theta_of(step, element(quad, lane, places[lane]));
            let result = bijector(value[lane], theta, step.bound, inverse);
            value[lane] = result.x;
            shares[lane] = result.y;
        }
    }
    memory[AT_ROWS + quad] = value;
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

// In a table of whole rows: the index of a quad's first feature, and how many features the quad has.
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
        memory[AT_KEPT + quad] = kept_part(step, quad, memory[AT_ROWS + quad]);
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
