// The Adam update, and the advance of the training state to the next step.
//
// Equation:  m += (1 − β1)(k·g − m), v += (1 − β2)((k·g)² − v), θ −= lr · (λθ + m/c1 / (√(v/c2) + ε)) with k the clip
//            factor min(1, clip_norm / ‖g‖), c = 1 − β^step and decoupled decay λ.
// Threads:   advance: one workgroup of 256 sums the norms and the rows' log p, then its first thread advances the
//            state. adam: one thread for a parameter, after advance.
// Data:      gradient, parameters, moment1, moment2 [P]; norms [norm_groups]; log_prob [capacity].
// Order:     sums thread by thread with stride 256, then by a fixed tree.
// Twin:      src/cpu/adam.rs

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read_write> state: TrainState;
@group(0) @binding(2) var<storage, read> norms: array<f32>;
@group(0) @binding(3) var<storage, read> log_prob: array<f32>;
@group(0) @binding(4) var<storage, read> update: TrainState;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(7) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(8) var<storage, read_write> moment2: array<f32>;

// The rate at `step`; cos² by its own series, because the built-in cosine promises only 2⁻¹¹.
fn learning_rate(step: u32) -> f32 {
    if step < rules.warmup_steps {
        return rules.base_rate * (f32(step + 1u) / f32(rules.warmup_steps));
    }
    if rules.decay == 0u {
        return rules.base_rate;
    }
    let span = max(rules.total_steps, rules.warmup_steps + 1u) - rules.warmup_steps;
    let left = span - min(step - rules.warmup_steps, span);
    // sin(π/2 · left / span) = cos(π/2 · (1 − left / span)): without cancellation near the end, and zero there.
    let y = 1.5707963267948966 * (f32(left) / f32(span));
    let q = y * y;
    let sine = y * (1.0 + q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0
        + q * (1.0 / 362880.0 - q * (1.0 / 39916800.0))))));
    return rules.base_rate * sine * sine;
}

@compute @workgroup_size(256)
fn advance(@builtin(local_invocation_index) local: u32) {
    var squares = 0.0;
    for (var i = local; i < rules.norm_groups; i += 256u) {
        squares += norms[i];
    }
    let squared_norm = sum_workgroup(local, squares);
    var log_probs = 0.0;
    for (var i = local; i < state.rows; i += 256u) {
        log_probs += log_prob[i];
    }
    let nll = -sum_workgroup(local, log_probs);
    if local != 0u {
        return;
    }
    if !is_finite(squared_norm) || !is_finite(nll) {
        state.halted = 1u;
    }
    // A halted training stands still: step, epoch and place in the epoch stay those of the step it met.
    if state.halted == 1u {
        return;
    }
    let norm = sqrt(squared_norm);
    state.learning_rate = learning_rate(state.step);
    state.clip = select(1.0, rules.clip_norm / norm, norm > rules.clip_norm);
    state.bias_correction1 += rules.rate1 * (1.0 - state.bias_correction1);
    state.bias_correction2 += rules.rate2 * (1.0 - state.bias_correction2);
    state.nll_sum += nll;
    state.norm_sum += norm;
    state.norm_steps += 1u;
    state.step += 1u;
    // The next batch: what is left of the epoch, or the first of the next one.
    let next = state.first + state.rows;
    if next < rules.train_rows {
        state.first = next;
        state.rows = min(rules.batch, rules.train_rows - next);
    } else {
        state.first = 0u;
        state.rows = min(rules.batch, rules.train_rows);
        state.epoch += 1u;
    }
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
    let g = gradient[p] * update.clip;
    let m = moment1[p] + rules.rate1 * (g - moment1[p]);
    let v = moment2[p] + rules.rate2 * (g * g - moment2[p]);
    moment1[p] = m;
    moment2[p] = v;
    let decayed = parameters[p] - update.learning_rate * rules.weight_decay * parameters[p];
    let direction = (m / update.bias_correction1) / (sqrt(v / update.bias_correction2) + rules.epsilon);
    parameters[p] = decayed - update.learning_rate * direction;
}
