// Back through an actnorm.
//
// Equation:  d_x = d_z · exp(−s); d_shift = −Σ_rows d_x, d_s = Σ_rows (factor − d_z · z).
// Threads:   each takes its quads; of sums over rows, each of the first team takes columns of quads.
// Data:      AT_ROWS: d_z, then d_x; AT_KEPT: z; AT_D_THETA: what is summed.
// Order:     sums over increasing row.
// Twin:      src/cpu/actnorm.rs. Follows backward.wgsl.

fn actnorm_backward(local: u32, group: u32, transform: FusedTransform, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let d_z = memory[AT_ROWS + quad];
        let z = memory[AT_KEPT + quad];
        let counts = first + quad / QUADS < state.rows;
        let shrink = exp_quad(-packed[transform.weights + QUADS + quad % QUADS]);
        let d_x = select(vec4<f32>(), d_z * shrink, counts);
        let d_s = select(vec4<f32>(), vec4<f32>(row_factor(first + quad / QUADS)) - d_z * z, counts);
        memory[AT_ROWS + quad] = d_x;
        memory[AT_D_THETA + quad] = modelled_part(-d_x, quad % QUADS);
        memory[AT_D_THETA + ROW_QUADS + quad] = modelled_part(d_s, quad % QUADS);
    }
    workgroupBarrier();
    let add = first != group * ROWS;
    let slot = group * fused.slot_quads + transform.slot;
    let member = member_of(local, 0u, 1u);
    put_column_sums(member, AT_D_THETA, QUADS, slot, add);
    put_column_sums(member, AT_D_THETA + ROW_QUADS, QUADS, slot + QUADS, add);
    workgroupBarrier();
}

