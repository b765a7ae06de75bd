// The rows through one transform, in either direction.
//
// Equation:  that of its kind.
// Threads:   as in rows.wgsl.
// Data:      AT_ROWS, and what its kind has beside it.
// Order:     that of its kind.
// Twin:      src/cpu/pass.rs. Precedes the text with the entry point.

fn transform_rows(local: u32, transform: u32, inverse: bool) {
    let step = fused.steps[transform];
    if step.kind == PERMUTATION {
        permute_rows(local, step, inverse);
        return;
    }
    if step.kind == LU && inverse {
        lu_inverse(local, step);
        return;
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = kept_part(step, quad, memory[AT_ROWS + quad]);
    }
    workgroupBarrier();
    run_networks(local, step);
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        switch step.kind {
            case COUPLING: { transform_quad(step, quad, inverse); }
            case ACTNORM: { normalise_quad(step, quad, inverse); }
            default: { lu_quad(step, quad); }
        }
    }
}
