// What all fused kernels share: a workgroup carries ROWS rows through a flow, its activations in workgroup memory.
// src/gpu/fused/shape.rs chooses the constants.
//
// Equation:  that of each kind of transform, in the text of its name; log_det is summed over transforms.
// Threads:   TEAMS teams, each of which takes one network of a transform at a time; products as in product.wgsl. Between
//            them a thread of the workgroup owns quads of four features of a row, the same ones throughout.
// Data:      packed: every weight twice, [in, out] and [out, in], edges padded with zeros to multiples of 4, and biases;
//            roles: of each feature in each transform. memory: see its areas below.
// Order:     a barrier after each layer; sums run over increasing depth, slices of the depth in order.
// Twin:      src/cpu/pass.rs

const ROW_QUADS: u32 = ROWS * QUADS;
// Areas of memory, in quads: the current rows, or their gradient; what products read of them, such as kept features; the
// networks' outputs in OUTPUT_SLICES slices of the depth, or what is as wide as the features in SLICES slices; tiles of
// hidden layers, TILES for each team.
const AT_ROWS: u32 = 0u;
const AT_KEPT: u32 = ROW_QUADS;
const AT_THETA: u32 = 2u * ROW_QUADS;
const AT_TILES: u32 = AT_THETA + ROWS * THETA;
const TILE_SIZE: u32 = ROWS * WIDTH;
const AT_END: u32 = AT_TILES + TEAMS * TILES * TILE_SIZE;
// How far before a gradient of a hidden layer lies what tells its slope.
const TO_ACTIVE: u32 = SPARE_TILE * TILE_SIZE;

const TEAM_THREADS: u32 = THREADS / TEAMS;
// Stands for a thread that has nothing to do; barriers it meets all the same.
const NO_MEMBER: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> roles: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;

// Sums of log-determinants, quad by quad.
var<workgroup> log_dets: array<f32, ROW_QUADS>;

// Which of its team's threads a thread is, where the teams take networks from `first` on and there are `count`.
fn member_of(local: u32, first: u32, count: u32) -> u32 {
    return select(NO_MEMBER, local % TEAM_THREADS, first + local / TEAM_THREADS < count);
}

// The roles of a quad's features; those beyond the last feature count as kept, or stay where they are.
fn roles_of(transform: FusedTransform, quad: u32) -> vec4<u32> {
    return roles[transform.roles + quad % QUADS];
}

// Of a quad of features, those that a coupling keeps; the others are 0.
fn kept_part(transform: FusedTransform, quad: u32, value: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), value, roles_of(transform, quad) == vec4<u32>(KEPT));
}

// In a table of whole rows: the index of a quad's first feature, and how many features the quad has.
fn quad_at(row: u32, quad: u32) -> vec2<u32> {
    let first = 4u * quad;
    return vec2<u32>(row * fused.features + first, min(4u, fused.features - first));
}

// A quad of a product that is as wide as the features: the sum of its slices, the first of which begins at `at`.
fn sum_of_slices(at: u32, quad: u32) -> vec4<f32> {
    var sum = memory[at + quad];
    for (var slice = 1u; slice < SLICES; slice++) {
        sum += memory[at + slice * ROW_QUADS + quad];
    }
    return sum;
}

// Of a quad of features, those that are modelled; the others are 0.
fn modelled_part(value: vec4<f32>, quad: u32) -> vec4<f32> {
    let feature = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), value, feature < vec4<u32>(fused.modelled));
}

// log_det of a row that has been through all transforms.
fn log_det_of(row: u32) -> f32 {
    var log_det = 0.0;
    for (var quad = row * QUADS; quad < (row + 1u) * QUADS; quad++) {
        log_det += log_dets[quad];
    }
    return log_det;
}
