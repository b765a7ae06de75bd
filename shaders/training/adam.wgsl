// The Adam update, and the advance of the training state to the next step.
//
// Equation:  that of optimiser.wgsl.
// Threads:   advance: one workgroup of 256 sums the norms and the rows' log p, then its first thread advances the
//            state. adam: one thread for a parameter, after advance.
// Data:      gradient, parameters, moment1, moment2 [P]; norms [norm_groups]; log_prob and, where WEIGHTED is 1,
//            row_weights [capacity].
// Order:     sums thread by thread with stride 256, then by a fixed tree.
// Twin:      advance and adam in src/cpu/adam.rs

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read_write> state: TrainState;
@group(0) @binding(2) var<storage, read> norms: array<f32>;
@group(0) @binding(3) var<storage, read> log_prob: array<f32>;
@group(0) @binding(4) var<storage, read> update: TrainState;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(7) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(8) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(9) var<storage, read> row_weights: array<f32>;

@compute @workgroup_size(256)
fn advance(@builtin(local_invocation_index) local: u32) {
    var squares = 0.0;
    for (var i = local; i < rules.norm_groups; i += 256u) {
        squares += norms[i];
    }
    let squared_norm = sum_workgroup(local, squares);
    var log_probs = 0.0;
    for (var i = local; i < state.rows; i += 256u) {
        // A row that does not count may have any log p.
        if WEIGHTED == 0u {
            log_probs += log_prob[i];
        } else if row_weights[i] != 0.0 {
            log_probs += row_weights[i] * log_prob[i];
        }
    }
    let nll = -sum_workgroup(local, log_probs);
    if local != 0u {
        return;
    }
    state = advanced(rules, state, squared_norm, nll);
}

@compute @workgroup_size(256)
fn adam(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = (group.y * groups.x + group.x) * 256u + local;
    if p >= rules.parameters || update.halted == 1u {
        return;
    }
    let updated = adam_update(rules, update, gradient[p], parameters[p], vec2<f32>(moment1[p], moment2[p]));
    parameters[p] = updated.x;
    moment1[p] = updated.y;
    moment2[p] = updated.z;
}
