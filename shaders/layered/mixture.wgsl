// A Gaussian mixture over the M modelled features of latent rows: where its parameters lie. From layer.weight on these are
// logits [K], mean [K, M], log_diagonal [K, M] and lower [K, M, M]. Factor A_k has exp(log_diagonal_k) on its diagonal and
// lower_k below it; what lower has beside that is neither read nor written.
//
// whitened [K, capacity, M] has y = A_k · (z − mean_k) of each component, and behind it each component's responsibility for
// the row, its share of the row's density, times the row's factor [K, capacity].

fn mean_at(k: u32, j: u32) -> u32 {
    return layer.weight + layer.components + k * layer.modelled + j;
}

fn log_diagonal_at(k: u32, i: u32) -> u32 {
    return mean_at(layer.components + k, i);
}

fn lower_at(k: u32, i: u32, j: u32) -> u32 {
    return mean_at(2u * layer.components, 0u) + (k * layer.modelled + i) * layer.modelled + j;
}

// A_k[i, j] for j ≤ i.
fn factor_entry(k: u32, i: u32, j: u32) -> f32 {
    if i == j {
        return exp_accurate(parameters[log_diagonal_at(k, i)]);
    }
    return parameters[lower_at(k, i, j)];
}

fn logit(k: u32) -> f32 {
    return parameters[layer.weight + k];
}

fn whitened_at(k: u32, row: u32, i: u32) -> u32 {
    return (k * layer.capacity + row) * layer.modelled + i;
}

fn responsibility_at(k: u32, row: u32) -> u32 {
    return whitened_at(layer.components, 0u, 0u) + k * layer.capacity + row;
}
