// Back through an LU layer.
//
// Equation:  d_y = Lᵀ · d_z, d_x = Uᵀ · d_y; d_L = Σ_rows d_z yᵀ, d_U = Σ_rows d_y xᵀ, d_bias = Σ_rows d_z and
//            d_log_diagonal = Σ_rows (d_y ⊙ x ⊙ exp(log_diagonal) − factor). y is computed anew.
// Threads:   products and gradients of weights as in backward.wgsl; between them each takes its quads.
// Data:      AT_ROWS: d_z, d_y, d_x; AT_KEPT: x, y, x; AT_LU: what is summed to d_log_diagonal. Diagonals of products are
//            added here, and gradients beside a triangle have no place in a slot.
// Order:     sums over increasing row.
// Twin:      src/cpu/lu.rs. Follows lu.wgsl.

const AT_LU: u32 = AT_THETA + SLICES * ROW_QUADS;

// x to AT_KEPT, and no gradient for rows beyond the batch.
fn lu_begin_backward(transform: FusedTransform, group: u32, quad: u32, counts: bool) {
    memory[AT_ROWS + quad] = select(vec4<f32>(), memory[AT_ROWS + quad], counts);
    memory[AT_KEPT + quad] = saved[input_at(transform, group, quad)];
}

// Between L and U: d_y, from d_z and its product with L.
fn lu_between(local: u32, transform: FusedTransform, group: u32, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let d_y = memory[AT_ROWS + quad] + sum_of_slices(AT_THETA, quad);
        let x = saved[input_at(transform, group, quad)];
        let row = first + quad / QUADS;
        let d_s = d_y * x * lu_diagonal(transform, quad) - row_factor(row);
        memory[AT_ROWS + quad] = d_y;
        memory[AT_KEPT + quad] = x;
        memory[AT_LU + quad] = select(vec4<f32>(), modelled_part(d_s, quad % QUADS), row < state.rows);
    }
    workgroupBarrier();
}

// d_x, from d_y and its product with U.
fn lu_end_backward(transform: FusedTransform, quad: u32) {
    memory[AT_ROWS + quad] = memory[AT_ROWS + quad] * lu_diagonal(transform, quad) + sum_of_slices(AT_THETA, quad);
}
