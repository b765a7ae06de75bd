// The end of an epoch: validation is summed tile by tile, the epoch's record written, the best parameters kept.
//
// Equation:  validation NLL = −Σ w · log p / Σ w, with the rows' weights where WEIGHTED is 1, or w = 1; the parameters are
//            kept when it is the lowest so far.
// Threads:   accumulate: one workgroup of 256. close_epoch: one thread. keep_best: one thread for a parameter.
// Data:      log_prob [capacity]; row_weights [V]; history: one Record an epoch; parameters, best [P].
// Order:     log p thread by thread with stride 256, then by a fixed tree; tiles in increasing order of rows.
// Twin:      src/cpu/training.rs

struct Validation {
    // Where Extent has them: rows of the current tile, and its first row.
    rows: u32,
    first: u32,
    log_prob_sum: f32,
    padding: u32,
}

struct Record {
    train_nll: f32,
    validation_nll: f32,
    learning_rate: f32,
    grad_norm: f32,
    improved: u32,
    halted: u32,
    epoch: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read_write> state: TrainState;
@group(0) @binding(2) var<storage, read> log_prob: array<f32>;
@group(0) @binding(3) var<storage, read_write> validation: Validation;
@group(0) @binding(4) var<storage, read_write> history: array<Record>;
@group(0) @binding(5) var<storage, read> verdict: TrainState;
@group(0) @binding(6) var<storage, read> parameters: array<f32>;
@group(0) @binding(7) var<storage, read_write> best: array<f32>;
@group(0) @binding(8) var<storage, read> row_weights: array<f32>;

@compute @workgroup_size(256)
fn accumulate(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < validation.rows; i += 256u) {
        if WEIGHTED == 0u {
            sum += log_prob[i];
        } else if row_weights[validation.first + i] != 0.0 {
            sum += row_weights[validation.first + i] * log_prob[i];
        }
    }
    let total = sum_workgroup(local, sum);
    if local == 0u {
        validation.log_prob_sum += total;
        validation.first += validation.rows;
        validation.rows = min(rules.validation_capacity, rules.validation_rows - validation.first);
    }
}

@compute @workgroup_size(1)
fn close_epoch() {
    var record: Record;
    record.train_nll = state.nll_sum / rules.train_weight;
    record.learning_rate = state.learning_rate;
    record.grad_norm = state.norm_sum / f32(max(state.norm_steps, 1u));
    record.halted = state.halted;
    // The epoch in which training halted does not count as completed.
    record.epoch = state.epoch + state.halted;
    state.improved = 0u;
    if rules.validation_rows > 0u {
        record.validation_nll = -validation.log_prob_sum / rules.validation_weight;
        if state.halted == 0u && is_finite(validation.log_prob_sum) && record.validation_nll < state.best_nll {
            state.best_nll = record.validation_nll;
            state.improved = 1u;
        }
    }
    record.improved = state.improved;
    history[state.records] = record;
    state.records += 1u;
    state.nll_sum = 0.0;
    state.norm_sum = 0.0;
    state.norm_steps = 0u;
    validation.first = 0u;
    validation.rows = min(rules.validation_capacity, rules.validation_rows);
    validation.log_prob_sum = 0.0;
}

@compute @workgroup_size(256)
fn keep_best(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = (group.y * groups.x + group.x) * 256u + local;
    if p < rules.parameters && verdict.improved == 1u {
        best[p] = parameters[p];
    }
}
