// Sampling by the fused plan: noise is drawn in the kernel and goes through the inverse, in one dispatch.
//
// Equation:  x = f⁻¹(z), with z drawn from the base density (base/) by temperature · noise, the noise that of latent.wgsl, bit
//            by bit; a context is taken as it is given.
// Threads:   a workgroup of THREADS takes ROWS rows; see rows.wgsl.
// Data:      normal_table [64, 32] of cubics; source [capacity, D], of which the context is read; destination
//            [capacity, D].
// Order:     that of rows.wgsl.
// Twin:      latent in src/cpu/sampling.rs, then inverse in src/cpu/mod.rs

const MEMORY: u32 = AT_END;
const ACTIVE_TILES: bool = RESIDUAL == 0u;

@group(0) @binding(3) var<storage, read> request: Latent;
@group(0) @binding(4) var<storage, read> normal_table: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> destination: array<f32>;
@group(0) @binding(6) var<storage, read> source: array<f32>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// Noise of a quad, followed by the row's context; zero beyond the last feature.
fn latent(row: u32, quad: u32) -> vec4<f32> {
    let key = vec2<u32>(request.key_low, request.key_high);
    let low = philox(vec4<u32>(request.first_row + row, 2u * quad, 0u, STREAM_LATENT), key);
    let high = philox(vec4<u32>(request.first_row + row, 2u * quad + 1u, 0u, STREAM_LATENT), key);
    let all = request.temperature * vec4<f32>(
        normal(low.x, low.y), normal(low.z, low.w), normal(high.x, high.y), normal(high.z, high.w),
    );
    var value = modelled_part(all, quad);
    if row < request.rows {
        for (var feature = max(4u * quad, fused.modelled); feature < min(4u * quad + 4u, fused.features); feature++) {
            value[feature - 4u * quad] = source[row * fused.features + feature];
        }
    }
    return value;
}

@compute @workgroup_size(THREADS)
fn fused_sample(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = group.x * ROWS;
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_ROWS + quad] = latent(first + quad / QUADS, quad % QUADS);
        log_dets[quad] = 0.0;
    }
    draw_rows(local, first);
    for (var place = 0u; place < fused.transform_count; place++) {
        transform_rows(local, fused.transform_count - 1u - place, true);
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let value = memory[AT_ROWS + quad];
        let row = first + quad / QUADS;
        if row < request.rows {
            let at = quad_at(row, quad % QUADS);
            for (var j = 0u; j < at.y; j++) {
                destination[at.x + j] = value[j];
            }
        }
    }
}
