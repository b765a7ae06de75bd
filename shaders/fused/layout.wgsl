// How the fused plan lays out a flow: the uniform of all its kernels. Library text without bindings.
//
// A network's packed weights hold, layer after layer, [out, in] and the bias, then every layer's [in, out], as quads of
// four neighbouring values along the last axis; both axes are padded with zeros to multiples of 4, so that every load is
// a whole quad. An actnorm's hold its shifts and its log-scales, each padded likewise; an LU layer's are those of a network
// with two layers, see lu.wgsl; those of a mixture are described in base/mixture.wgsl. A slot of partial gradients holds the
// first half of a network's, and all of an actnorm's and of a mixture's.
//
// Columns of a last layer: where a coupling has two networks, network k has number k of feature j at column j. A single
// network has all numbers of the transformed feature of place p from column 4 · PLACE_QUADS · p on, padded to whole quads,
// and no column for a kept feature.
// Mirrored by src/gpu/uniforms.rs, filled in by src/gpu/fused/layout.rs. Follows optimiser_state.wgsl.

// Kinds of transforms.
const COUPLING: u32 = 0u;
const ACTNORM: u32 = 1u;
const LU: u32 = 2u;
const PERMUTATION: u32 = 3u;

// A feature's role: KEPT, or its place among those that a coupling transforms. In a permutation: from which feature it
// comes, and after these rows of roles, to which it goes.
const KEPT: u32 = 0xffffffffu;
// Stands for the place of a parameter that nothing reads: masked outputs of a single network.
const NOWHERE: u32 = 0xffffffffu;

// A linear layer of a network.
struct Span {
    // Widths in quads.
    input_quads: u32,
    output_quads: u32,
    // Offsets, in quads, among a network's packed weights: [out, in], bias, and [in, out].
    natural: u32,
    bias: u32,
    transposed: u32,
    // 1 where its input passes through the activation first.
    activated: u32,
    // 1 where the result of the layer before the previous one is added to its own.
    skips: u32,
    padding: u32,
}

// A transform. Offsets are in quads.
struct FusedTransform {
    kind: u32,
    // Of its features' roles.
    roles: u32,
    // Of its packed parameters, and of its gradient in a slot.
    weights: u32,
    slot: u32,
    // Among what is saved of a row: its input, then what its bijector saves of each transformed feature.
    saved: u32,
    // Networks, the first of their linear layers' spans, and how many there are. All networks of a coupling have one shape.
    networks: u32,
    spans: u32,
    depth: u32,
    // From one network to the next: packed weights, and gradient in a slot.
    weights_stride: u32,
    slot_stride: u32,
    bound: f32,
    // Features that it transforms.
    transformed: u32,
}

// What a training step leaves of its batch: the state before it; log p of its rows [batch], or where rows have weights, log p times
// weight, and then their weights [batch].
struct BatchReport {
    before: TrainState,
    rows: array<f32>,
}

struct Fused {
    rules: Rules,
    transform_count: u32,
    features: u32,
    // Features whose density the flow is: all but the context, which follows them.
    modelled: u32,
    // Workgroups that share a batch, and quads of a slot.
    groups: u32,
    slot_quads: u32,
    // Of the base density: its packed parameters, and its gradient in a slot. Offsets in quads.
    base: u32,
    base_slot: u32,
    padding: u32,
    transforms: array<FusedTransform, 64>,
    spans: array<Span, 32>,
}

// What the weights of a batch's rows are multiplied by, so that they are about 1 / rows.
fn weight_unit(rules: Rules, rows: u32) -> f32 {
    return f32(rules.train_rows) / rules.train_weight / f32(rows);
}
