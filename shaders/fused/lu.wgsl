// An LU layer.
//
// Equation:  y = U · x, z = L · y + bias, log_det = Σ log_diagonal; U upper triangular with exp(log_diagonal) on its
//            diagonal, L unit lower triangular.
// Threads:   products as in product.wgsl, then each takes its quads; backwards in order, a thread takes a row.
// Data:      a network of two layers: U without its diagonal, log_diagonal in the place of its bias; L without its
//            diagonal, and the bias. All are zero for the context and beyond the last feature, which therefore pass.
//            AT_KEPT: x, then y. AT_THETA: slices of a product (product.wgsl).
// Order:     sums run over increasing feature; the diagonal comes first.
// Twin:      src/cpu/lu.rs. Follows network.wgsl.

// exp(log_diagonal) of a quad of features.
fn lu_diagonal(transform: FusedTransform, quad: u32) -> vec4<f32> {
    return exp_quad(packed[transform.weights + fused.spans[transform.spans].bias + quad % QUADS]);
}

// What goes into layer `layer`: x, or y from x and its product with U.
fn lu_input(local: u32, transform: FusedTransform, layer: u32) {
    if layer == 0u {
        return;
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = lu_diagonal(transform, quad) * memory[AT_KEPT + quad] + sum_of_slices(AT_THETA, quad);
    }
    workgroupBarrier();
}

// log_det of a quad of features.
fn lu_log_det(transform: FusedTransform, quad: u32) -> f32 {
    let s = packed[transform.weights + fused.spans[transform.spans].bias + quad % QUADS];
    return (s.x + s.y) + (s.z + s.w);
}

// z at a quad, from y and its product with L.
fn lu_quad(transform: FusedTransform, quad: u32) {
    let bias = packed[transform.weights + fused.spans[transform.spans + 1u].bias + quad % QUADS];
    memory[AT_ROWS + quad] = memory[AT_KEPT + quad] + sum_of_slices(AT_THETA, quad) + bias;
    log_dets[quad] += lu_log_det(transform, quad);
}

// Quads `first` to `end` of row `out` of a layer's matrix times a row of AT_ROWS.
fn lu_dot(transform: FusedTransform, layer: u32, out: u32, row: u32, first: u32, end: u32) -> f32 {
    let matrix = transform.weights + fused.spans[transform.spans + layer].natural + out * QUADS;
    var sum = 0.0;
    for (var quad = first; quad < end; quad++) {
        sum += dot(packed[matrix + quad], memory[AT_ROWS + row * QUADS + quad]);
    }
    return sum;
}

// z to x, by substitution: zeros of a matrix hide what is not solved yet.
fn lu_inverse(local: u32, transform: FusedTransform) {
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        for (var j = 0u; j < fused.modelled; j++) {
            let at = AT_ROWS + row * QUADS + j / 4u;
            let bias = packed[transform.weights + fused.spans[transform.spans + 1u].bias + j / 4u][j % 4u];
            let y = memory[at][j % 4u] - bias - lu_dot(transform, 1u, j, row, 0u, j / 4u + 1u);
            memory[at][j % 4u] = y;
        }
        for (var place = 0u; place < fused.modelled; place++) {
            let j = fused.modelled - 1u - place;
            let at = AT_ROWS + row * QUADS + j / 4u;
            let solved = memory[at][j % 4u] - lu_dot(transform, 0u, j, row, j / 4u, QUADS);
            memory[at][j % 4u] = solved / lu_diagonal(transform, j / 4u)[j % 4u];
        }
    }
    workgroupBarrier();
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        log_dets[quad] -= lu_log_det(transform, quad);
    }
}
