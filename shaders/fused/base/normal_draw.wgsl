// Rows drawn from independent standard normals: noise as it is. What every text in its place defines: draw_rows, which makes
// latent rows of the noise in AT_ROWS.
// Twin: latent in src/cpu/sampling.rs

fn draw_rows(local: u32, first: u32) {}
