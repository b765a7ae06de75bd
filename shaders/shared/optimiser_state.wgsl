// What training carries from step to step on the device, and the rules by which it does.

struct TrainState {
    // These two stand where Extent has them: every kernel of a step reads this buffer as its extent.
    rows: u32,
    first: u32,
    // Completed steps, and completed epochs.
    step: u32,
    epoch: u32,
    // 1 once a loss or gradient was not finite: nothing is updated from then on.
    halted: u32,
    // 1 if the last closed epoch had the lowest validation loss so far.
    improved: u32,
    // 1 − β^step, kept by c ← c + (1 − β)(1 − c), which loses no digits for small steps.
    bias_correction1: f32,
    bias_correction2: f32,
    // Of the step whose gradient stands in the buffers: learning rate and factor that clips its norm.
    learning_rate: f32,
    clip: f32,
    // Sums over the epoch's steps so far: −log p of its rows, and gradient norms.
    nll_sum: f32,
    norm_sum: f32,
    // Steps that went into norm_sum.
    norm_steps: u32,
    best_nll: f32,
    // Records written since the host last read them.
    records: u32,
    padding: u32,
}

struct Rules {
    // Training rows N and rows of a full batch.
    train_rows: u32,
    batch: u32,
    features: u32,
    parameters: u32,
    key_low: u32,
    key_high: u32,
    // Partial sums of squares that sum_partials leaves.
    norm_groups: u32,
    // Splits of the batch whose partial gradients sum_partials adds.
    splits: u32,
    // 1 − β, rounded once from the decimal β.
    gain1: f32,
    gain2: f32,
    epsilon: f32,
    weight_decay: f32,
    clip_norm: f32,
    base_rate: f32,
    warmup_steps: u32,
    total_steps: u32,
    // 0 constant, 1 cosine.
    decay: u32,
    validation_rows: u32,
    validation_capacity: u32,
    // Place of the first row of the current buffer, where a table is cut into several.
    shard_first: u32,
    // Sums of the weights of training and validation rows: their numbers, where all rows count alike.
    train_weight: f32,
    validation_weight: f32,
    // Place in d_coupling of the factors of the batch's rows, where rows have weights.
    factors: u32,
    padding: u32,
}
