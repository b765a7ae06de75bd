// Where the gradient begins, from a Gaussian mixture, in the place of normal_backward.wgsl; and the gradients of its parameters.
//
// Equation:  with r_k = factor · exp(t_k) / Σ_l exp(t_l) and w_k = r_k · y_k: d_z = Σ_k A_kᵀ · w_k; over rows d_mean_k =
//            −Σ A_kᵀ · w_k, d_lower_kij = Σ w_ki · (z − mean_k)_j, d_log_diagonal_ki = Σ (w_ki · (z − mean_k)_i ·
//            exp(log_diagonal_ki) − r_k), d_logit_k = Σ (factor · π_k − r_k).
// Threads:   component by component: each takes its quads, and of sums over rows, quads of parameters.
// Data:      AT_TERMS: t, then r; AT_ROWS: z, then d_z; AT_KEPT: w_k, then z; AT_PULLED: A_kᵀ · w_k; AT_D_Z: their sum. A slot
//            has the parameters as packed has; what it has beside the triangles has no place.
// Order:     three barriers a component; sums over increasing component, feature and row.
// Twin:      backward in src/cpu/reference/mixture.rs. Follows mixture.wgsl and backward.wgsl.

const AT_PULLED: u32 = AT_THETA;
const AT_D_Z: u32 = AT_THETA + ROW_QUADS;

// The factor of a row, 0 beyond the batch.
fn counted_factor(row: u32) -> f32 {
    return select(0.0, row_factor(row), row < state.rows);
}

// The responsibilities of a row's components, in place of its terms.
fn put_responsibilities(row: u32, factor: f32) {
    let at = AT_TERMS + row * COMPONENTS;
    let log_sum = log_sum_of(row);
    for (var k = 0u; k < COMPONENTS; k++) {
        memory[at + k] = vec4<f32>(factor * exp_or_zero(memory[at + k].x - log_sum));
    }
}

// A quad of d_logit.
fn logit_gradient(quad: u32, first: u32) -> vec4<f32> {
    let log_sum = log_weight_sum(COMPONENTS);
    var sums = vec4<f32>();
    for (var k = 4u * quad; k < min(4u * quad + 4u, COMPONENTS); k++) {
        let weight = exp_or_zero(logit(k) - log_sum);
        var sum = 0.0;
        for (var row = 0u; row < ROWS; row++) {
            sum += counted_factor(first + row) * weight - memory[AT_TERMS + row * COMPONENTS + k].x;
        }
        sums[k % 4u] = sum;
    }
    return sums;
}

// A quad of A_kᵀ · w_k of a row.
fn pulled_quad(k: u32, row: u32, quad: u32) -> vec4<f32> {
    let lower = fused.base + component_at(k) + LOWER;
    var sum = factor_diagonal(k, quad) * memory[AT_KEPT + row * QUADS + quad];
    for (var i = 4u * quad; i < 4u * QUADS; i++) {
        sum += packed[lower + i * QUADS + quad] * memory[AT_KEPT + row * QUADS + i / 4u][i % 4u];
    }
    return sum;
}

fn diagonal_gradient(k: u32, quad: u32) -> vec4<f32> {
    let diagonal = factor_diagonal(k, quad);
    var sum = vec4<f32>();
    for (var row = 0u; row < ROWS; row++) {
        let along = memory[AT_KEPT + row * QUADS + quad] * centred_quad(k, row, quad) * diagonal;
        sum += along - memory[AT_TERMS + row * COMPONENTS + k];
    }
    return modelled_part(sum, quad);
}

// A quad of row `i` of d_lower.
fn lower_gradient(k: u32, i: u32, quad: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var row = 0u; row < ROWS; row++) {
        sum += memory[AT_KEPT + row * QUADS + i / 4u][i % 4u] * centred_quad(k, row, quad);
    }
    return sum;
}

fn put_component_gradient(local: u32, k: u32, slot: u32, add: bool) {
    let at = slot + component_at(k);
    for (var quad = local; quad < QUADS; quad += THREADS) {
        var sum = vec4<f32>();
        for (var row = 0u; row < ROWS; row++) {
            sum -= memory[AT_PULLED + row * QUADS + quad];
        }
        put_partial(at + quad, sum, add);
        put_partial(at + QUADS + quad, diagonal_gradient(k, quad), add);
    }
    for (var item = local; item < 4u * QUADS * QUADS; item += THREADS) {
        put_partial(at + LOWER + item, lower_gradient(k, item / QUADS, item % QUADS), add);
    }
}

fn base_backward(local: u32, group: u32, first: u32) {
    let slot = group * fused.slot_quads + fused.base_slot;
    let add = first != group * ROWS;
    for (var row = local; row < ROWS; row += THREADS) {
        put_responsibilities(row, counted_factor(first + row));
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_D_Z + quad] = vec4<f32>();
    }
    workgroupBarrier();
    for (var quad = local; quad < LOGIT_QUADS; quad += THREADS) {
        put_partial(slot + quad, logit_gradient(quad, first), add);
    }
    for (var k = 0u; k < COMPONENTS; k++) {
        for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
            let row = quad / QUADS;
            let responsibility = memory[AT_TERMS + row * COMPONENTS + k];
            memory[AT_KEPT + quad] = responsibility * whitened_quad(k, row, quad % QUADS);
        }
        workgroupBarrier();
        for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
            let pulled = pulled_quad(k, quad / QUADS, quad % QUADS);
            memory[AT_PULLED + quad] = pulled;
            memory[AT_D_Z + quad] += pulled;
        }
        workgroupBarrier();
        put_component_gradient(local, k, slot, add);
        workgroupBarrier();
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = memory[AT_ROWS + quad];
        memory[AT_ROWS + quad] = memory[AT_D_Z + quad];
    }
}
