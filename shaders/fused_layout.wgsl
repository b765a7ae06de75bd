// How the fused plan lays out a flow's weights: the uniform of all its kernels. Library text without bindings.
// A network's packed weights hold, layer after layer, [out, in] and the bias, then every layer's [in, out], as quads of
// four neighbouring values along the last axis; both axes are padded with zeros to multiples of 4, so that every load is
// a whole quad. A slot of partial gradients holds the first half of it for every network.
// Mirrored by src/gpu/uniforms.rs, filled in by src/gpu/fused/packing.rs. Follows optimiser_state.wgsl.

// A linear layer of any network.
struct Span {
    inputs: u32,
    outputs: u32,
    // The same in quads.
    input_quads: u32,
    output_quads: u32,
    // Offset of its weight among a network's parameters; the bias follows.
    weight: u32,
    // Offsets, in quads, among a network's packed weights: [out, in], bias, and [in, out].
    natural: u32,
    bias: u32,
    transposed: u32,
}

struct Fused {
    rules: Rules,
    couplings: u32,
    // Linear layers of a network.
    depth: u32,
    features: u32,
    bound: f32,
    // Parameters of a network, quads of its packed weights, and those of its gradient in a slot.
    network_stride: u32,
    packed_stride: u32,
    slot_stride: u32,
    // Workgroups that share a batch.
    groups: u32,
    // Features whose density the flow is: all but the context behind them.
    modelled: u32,
    padding0: u32,
    padding1: u32,
    padding2: u32,
    spans: array<Span, 8>,
}
