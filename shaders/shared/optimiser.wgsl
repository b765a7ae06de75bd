// The rules of optimisation: learning rate, the advance of the training state, and Adam's update of one parameter.
//
// Equation:  m += (1 − β1)(k·g − m), v += (1 − β2)((k·g)² − v), θ −= lr · (λθ + m/c1 / (√(v/c2) + ε)) with k the clip
//            factor min(1, clip_norm / ‖g‖), c = 1 − β^step and decoupled decay λ.
// Threads:   none: library text without bindings; each function is pure.
// Data:      by value.
// Order:     no barriers and no sums.
// Twin:      src/cpu/adam.rs

// The rate at `step`; cos² by its own series, because the built-in cosine promises only 2⁻¹¹.
fn learning_rate(rules: Rules, step: u32) -> f32 {
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

// The state after a step whose gradient has this squared norm and whose rows have this sum of −log p.
fn advanced(rules: Rules, before: TrainState, squared_norm: f32, nll: f32) -> TrainState {
    var state = before;
    if !is_finite(squared_norm) || !is_finite(nll) {
        state.halted = 1u;
    }
    // A halted training stands still: step, epoch and place in the epoch stay those of the step it met.
    if state.halted == 1u {
        return state;
    }
    let norm = sqrt(squared_norm);
    state.learning_rate = learning_rate(rules, state.step);
    state.clip = select(1.0, rules.clip_norm / norm, norm > rules.clip_norm);
    state.bias_correction1 += rules.gain1 * (1.0 - state.bias_correction1);
    state.bias_correction2 += rules.gain2 * (1.0 - state.bias_correction2);
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
    return state;
}

// The parameter (x) and its two moments (y, z) after the update that `update` describes.
fn adam_update(rules: Rules, update: TrainState, gradient: f32, parameter: f32, moments: vec2<f32>) -> vec3<f32> {
    let g = gradient * update.clip;
    let m = moments.x + rules.gain1 * (g - moments.x);
    let v = moments.y + rules.gain2 * (g * g - moments.y);
    let decayed = parameter - update.learning_rate * rules.weight_decay * parameter;
    let direction = (m / update.bias_correction1) / (sqrt(v / update.bias_correction2) + rules.epsilon);
    return vec3<f32>(decayed - update.learning_rate * direction, m, v);
}
