// Rows drawn from a Gaussian mixture, in the place of normal_draw.wgsl.
//
// Equation:  z = mean_k + A_k⁻¹ · ε, with ε the noise in AT_ROWS and k chosen by random bits of (seed, first_row + row).
// Threads:   one for each row, for every number needs those before it.
// Data:      AT_ROWS: ε, then z; a context stays.
// Order:     a barrier before and after; sums over increasing feature.
// Twin:      choose and place in src/cpu/reference/mixture.rs. Follows mixture.wgsl.

const STREAM_COMPONENT = 10u;

fn draw_row(row: u32, number: u32) {
    let key = vec2<u32>(request.key_low, request.key_high);
    let bits = philox(vec4<u32>(number, 0u, 0u, STREAM_COMPONENT), key);
    let k = choose_component(f32(bits.x >> 8u) * (1.0 / 16777216.0), COMPONENTS);
    let at = AT_ROWS + row * QUADS;
    let component = fused.base + component_at(k);
    for (var j = 0u; j < fused.modelled; j++) {
        // Zeros on and above the diagonal hide what is not solved yet.
        var known = 0.0;
        for (var quad = 0u; quad <= j / 4u; quad++) {
            known += dot(packed[component + LOWER + j * QUADS + quad], memory[at + quad]);
        }
        let s = packed[component + QUADS + j / 4u][j % 4u];
        memory[at + j / 4u][j % 4u] = (memory[at + j / 4u][j % 4u] - known) * exp_accurate(-s);
    }
    for (var quad = 0u; quad < QUADS; quad++) {
        memory[at + quad] += packed[component + quad];
    }
}

fn draw_rows(local: u32, first: u32) {
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        draw_row(row, request.first_row + first + row);
    }
    workgroupBarrier();
}
