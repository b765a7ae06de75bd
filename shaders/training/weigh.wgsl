// How much each row of a batch counts, where rows have weights.
//
// Equation:  w[r] = weights[π(first + r)], π the epoch's permutation (random.wgsl); factor[r] = w[r] / Σ w, or 0 where no
//            row counts.
// Threads:   one workgroup of 256 strides over the rows, twice.
// Data:      weights [N]; batch_weights [capacity]; the factors lie in d_coupling from rules.factors on [capacity], where the
//            backward pass reads them.
// Order:     sums thread by thread with stride 256, then by a fixed tree.
// Twin:      BatchWeights in src/cpu/mod.rs

const EPOCH_STREAM: u32 = 1u;

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read> state: TrainState;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> batch_weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_coupling: array<f32>;

@compute @workgroup_size(256)
fn weigh(@builtin(local_invocation_index) local: u32) {
    let key = vec2<u32>(rules.key_low, rules.key_high);
    var sum = 0.0;
    for (var row = local; row < state.rows; row += 256u) {
        let weight = weights[permute(state.first + row, rules.train_rows, key, EPOCH_STREAM, state.epoch)];
        batch_weights[row] = weight;
        sum += weight;
    }
    let total = sum_workgroup(local, sum);
    for (var row = local; row < state.rows; row += 256u) {
        // Each thread reads what it wrote.
        d_coupling[rules.factors + row] = select(0.0, batch_weights[row] / total, total > 0.0);
    }
}
