// The weights of a Gaussian mixture, the softmax of its logits: library text of both plans. The text before has logit(k).
// Twin: weights and choose in src/cpu/reference/mixture.rs

// eˣ, and 0 where it is below every normal number: exp_accurate does not go below e^−87.3.
fn exp_or_zero(x: f32) -> f32 {
    return select(exp_accurate(x), 0.0, x < -87.0);
}

// ln Σ_k exp(logit_k).
fn log_weight_sum(components: u32) -> f32 {
    var largest = logit(0u);
    for (var k = 1u; k < components; k++) {
        largest = max(largest, logit(k));
    }
    var sum = 0.0;
    for (var k = 0u; k < components; k++) {
        sum += exp_or_zero(logit(k) - largest);
    }
    return largest + ln_accurate(sum);
}

// The first component whose weight, added to those before it, exceeds `uniform` in [0, 1); else the last that has a weight.
fn choose_component(uniform: f32, components: u32) -> u32 {
    let log_sum = log_weight_sum(components);
    var chosen = 0u;
    var sum = 0.0;
    for (var k = 0u; k < components; k++) {
        let weight = exp_or_zero(logit(k) - log_sum);
        let before = sum;
        sum += weight;
        if weight > 0.0 && uniform >= before {
            chosen = k;
        }
    }
    return chosen;
}
