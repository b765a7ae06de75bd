// The base density of independent standard normals. What every text in its place defines: prepare_density, which a barrier
// precedes and after which log_density may be asked for any row.
//
// Equation:  log p = log_det − ½ Σ_j z_j² − M/2 · ln 2π over the M modelled features.
// Threads:   one for each row.
// Data:      AT_ROWS: z.
// Order:     a row's squares are summed over increasing feature, those of a quad in pairs.
// Twin:      negative_log_likelihood in src/cpu/loss.rs. Follows rows.wgsl.

fn prepare_density(local: u32) {}

// log p of a row that has become latent, from its log_det.
fn log_density(row: u32, log_det: f32) -> f32 {
    var squares = 0.0;
    for (var quad = row * QUADS; quad < (row + 1u) * QUADS; quad++) {
        let z = modelled_part(memory[AT_ROWS + quad], quad % QUADS);
        squares += (z.x * z.x + z.y * z.y) + (z.z * z.z + z.w * z.w);
    }
    return log_det - 0.5 * squares - f32(fused.modelled) * HALF_LN_TAU;
}
