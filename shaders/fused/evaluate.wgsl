// The rows through one transform, in either direction.
//
// Equation:  that of its kind.
// Threads:   as in rows.wgsl.
// Data:      AT_ROWS, and what its kind has beside it.
// Order:     that of its kind.
// Twin:      src/cpu/pass.rs. Precedes the text with the entry point.

fn transform_rows(local: u32, index: u32, inverse: bool) {
    let transform = fused.transforms[index];
    if transform.kind == PERMUTATION {
        permute_rows(local, transform, inverse);
        return;
    }
    if transform.kind == LU && inverse {
        lu_inverse(local, transform);
        return;
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = kept_part(transform, quad, memory[AT_ROWS + quad]);
    }
    workgroupBarrier();
    run_networks(local, transform);
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        switch transform.kind {
            case COUPLING: { transform_quad(transform, quad, inverse); }
            case ACTNORM: { normalise_quad(transform, quad, inverse); }
            default: { lu_quad(transform, quad); }
        }
    }
}
