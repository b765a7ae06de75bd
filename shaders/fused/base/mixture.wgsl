// A base density that is a Gaussian mixture of K = COMPONENTS components, in the place of normal.wgsl.
//
// Equation:  y_k = A_k · (z − mean_k), t_k = logit_k + Σ_i log_diagonal_ki − ½ |y_k|²,
//            log p = log_det + ln Σ_k exp(t_k) − ln Σ_k exp(logit_k) − M/2 · ln 2π.
// Threads:   one for each component of a row, then one for each row.
// Data:      packed from quad fused.base on: logits, then for each component its means, its log-diagonals, and the rows below
//            its diagonal [4 · QUADS, QUADS]; zero at the context, beyond the last feature, and beside the triangle.
//            AT_ROWS: z; AT_TERMS: t, a quad each.
// Order:     a barrier after the terms; sums over increasing feature and component.
// Twin:      log_density in src/cpu/reference/mixture.rs. Follows rows.wgsl.

// Within the area of θ: two planes of rows for the backward pass, then a quad for each component of a row.
const AT_TERMS: u32 = AT_THETA + 2u * ROW_QUADS;
const LOGIT_QUADS: u32 = (COMPONENTS + 3u) / 4u;
// Quads of a component's parameters, and of those before its rows below the diagonal.
const COMPONENT_QUADS: u32 = 2u * QUADS + 4u * QUADS * QUADS;
const LOWER: u32 = 2u * QUADS;
const LOWEST: f32 = -3.4e38;

fn logit(k: u32) -> f32 {
    return packed[fused.base + k / 4u][k % 4u];
}

// Where the parameters of a component begin, from those of the base density on.
fn component_at(k: u32) -> u32 {
    return LOGIT_QUADS + k * COMPONENT_QUADS;
}

// A quad of z − mean_k of a row.
fn centred_quad(k: u32, row: u32, quad: u32) -> vec4<f32> {
    return memory[AT_ROWS + row * QUADS + quad] - packed[fused.base + component_at(k) + quad];
}

fn factor_diagonal(k: u32, quad: u32) -> vec4<f32> {
    return exp_quad(packed[fused.base + component_at(k) + QUADS + quad]);
}

// A quad of y_k of a row.
fn whitened_quad(k: u32, row: u32, quad: u32) -> vec4<f32> {
    let lower = fused.base + component_at(k) + LOWER + 4u * quad * QUADS;
    var sum = factor_diagonal(k, quad) * centred_quad(k, row, quad);
    for (var place = 0u; place <= quad; place++) {
        let value = centred_quad(k, row, place);
        sum += vec4<f32>(
            dot(packed[lower + place], value),
            dot(packed[lower + QUADS + place], value),
            dot(packed[lower + 2u * QUADS + place], value),
            dot(packed[lower + 3u * QUADS + place], value),
        );
    }
    return modelled_part(sum, quad);
}

fn mixture_term(row: u32, k: u32) -> f32 {
    var squares = 0.0;
    var diagonal = 0.0;
    for (var quad = 0u; quad < QUADS; quad++) {
        let y = whitened_quad(k, row, quad);
        let s = packed[fused.base + component_at(k) + QUADS + quad];
        squares += (y.x * y.x + y.y * y.y) + (y.z * y.z + y.w * y.w);
        diagonal += (s.x + s.y) + (s.z + s.w);
    }
    return logit(k) + diagonal - 0.5 * squares;
}

fn prepare_density(local: u32) {
    for (var item = local; item < ROWS * COMPONENTS; item += THREADS) {
        memory[AT_TERMS + item] = vec4<f32>(mixture_term(item / COMPONENTS, item % COMPONENTS));
    }
    workgroupBarrier();
}

// ln Σ_k exp(t_k) of a row.
fn log_sum_of(row: u32) -> f32 {
    let at = AT_TERMS + row * COMPONENTS;
    var largest = LOWEST;
    for (var k = 0u; k < COMPONENTS; k++) {
        largest = max(largest, memory[at + k].x);
    }
    var sum = 0.0;
    for (var k = 0u; k < COMPONENTS; k++) {
        sum += exp_or_zero(memory[at + k].x - largest);
    }
    // So far out that every term has overflown, log p does too, and training sees it.
    return select(largest + ln_accurate(sum), 2.0 * largest, sum == 0.0);
}

fn log_density(row: u32, log_det: f32) -> f32 {
    return log_det + (log_sum_of(row) - log_weight_sum(COMPONENTS) - f32(fused.modelled) * HALF_LN_TAU);
}
