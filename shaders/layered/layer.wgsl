// What the kernels of a transform share: sizes and buffers.

// What a backward pass differentiates, the values of FACTOR: the mean of −log p over rows, their mean by the rows' weights, or
// log p of each row, of which no gradient of parameters is made.
const MEAN: u32 = 0u;
const WEIGHTED: u32 = 1u;
const SCORE: u32 = 2u;

struct Layer {
    // Inputs that feed the layer and outputs that leave it.
    inputs: u32,
    outputs: u32,
    // Lengths of the weight's rows and columns: inputs and outputs, but those of all features at the ends of a network.
    input_width: u32,
    output_width: u32,
    // Offsets of the first network's weight and bias; those of a second one lie network_stride further.
    weight: u32,
    bias: u32,
    network_stride: u32,
    // Parameters P: the distance between two splits' partials.
    parameters: u32,
    // Distance between the networks' planes in source: 0 where both read the same rows.
    source_stride: u32,
    // Offset of the first network's plane in d_output.
    d_output: u32,
    // Rows between the planes of all other activations.
    capacity: u32,
    features: u32,
    // Offset of this coupling in order.
    order: u32,
    // Features that it keeps.
    kept: u32,
    // Offset in order of the coupling that the gradient passes back through, and its bijector's bound.
    through: u32,
    through_bound: f32,
    // Rows of the batch that one split of the weight gradient sums.
    rows_per_split: u32,
    // Workgroups that make the gradient at the input; the others make the weight gradient.
    input_groups: u32,
    // 1 for the transform with which log_det begins.
    begins: u32,
    bound: f32,
    // Threads that share a row where rows are summed.
    lanes: u32,
    // Features whose density the flow is: all but the context, which follows them.
    modelled: u32,
    // Place of the rows' factors in d_coupling, where they have any (factor.wgsl).
    factors: u32,
    // Components of the base density, where that is a mixture.
    components: u32,
}

@group(0) @binding(0) var<uniform> layer: Layer;
@group(0) @binding(1) var<storage, read> extent: Extent;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read> source: array<f32>;
// [L, 2, D] for L transforms: for a coupling its features, kept ones first, then for each feature 1 if it is kept; for a
// permutation the place of each feature, then the same of its inverse.
@group(0) @binding(4) var<storage, read> order: array<u32>;
