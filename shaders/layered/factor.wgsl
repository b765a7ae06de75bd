// The factor of a row: what a backward pass differentiates is Σ factor · (−log p).

fn row_factor(row: u32) -> f32 {
    if FACTOR == WEIGHTED {
        return d_coupling[layer.factors + row];
    }
    if FACTOR == SCORE {
        return -1.0;
    }
    return 1.0 / f32(extent.rows);
}
