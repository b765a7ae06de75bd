// Where the gradient begins, from independent standard normals. What every text in its place defines: base_backward, which
// leaves the gradient at z in AT_ROWS and z in AT_KEPT, each quad by the thread that owns it.
//
// Equation:  d_z = factor · z at the modelled features.
// Threads:   each takes its quads.
// Data:      AT_ROWS: z, then d_z.
// Order:     no barriers and no sums.
// Twin:      negative_log_likelihood_backward in src/cpu/loss.rs

fn base_backward(local: u32, group: u32, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let z = memory[AT_ROWS + quad];
        memory[AT_KEPT + quad] = z;
        memory[AT_ROWS + quad] = modelled_part(z, quad % QUADS) * row_factor(first + quad / QUADS);
    }
}
