// Evaluation by the fused plan: a block of rows goes through all transforms in one dispatch, in either direction.
//
// Equation:  forward z = f(x), log p(x) = log_det + log p_Z(z), where the base density is a text of its own (base/);
//            inverse x = f⁻¹(z).
// Threads:   a workgroup of THREADS takes ROWS rows; see rows.wgsl.
// Data:      source [N, D], of which the rows from extent.first on are read; destination [capacity, D]; log_det and
//            log_prob [capacity].
// Order:     that of rows.wgsl; a row's log_det is summed over increasing feature.
// Twin:      forward, inverse and log_prob in src/cpu/mod.rs

const MEMORY: u32 = AT_END;
const ACTIVE_TILES: bool = RESIDUAL == 0u;

@group(0) @binding(3) var<storage, read> extent: Extent;
@group(0) @binding(4) var<storage, read> source: array<f32>;
@group(0) @binding(5) var<storage, read_write> destination: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_det: array<f32>;
@group(0) @binding(7) var<storage, read_write> log_prob: array<f32>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

fn load_rows(local: u32, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        var value = vec4<f32>();
        let row = first + quad / QUADS;
        if row < extent.rows {
            let at = quad_at(extent.first + row, quad % QUADS);
            for (var j = 0u; j < at.y; j++) {
                value[j] = source[at.x + j];
            }
        }
        memory[AT_ROWS + quad] = value;
        log_dets[quad] = 0.0;
    }
}

fn store_rows(local: u32, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let value = memory[AT_ROWS + quad];
        let row = first + quad / QUADS;
        if row < extent.rows {
            let at = quad_at(row, quad % QUADS);
            for (var j = 0u; j < at.y; j++) {
                destination[at.x + j] = value[j];
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn fused_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = group.x * ROWS;
    load_rows(local, first);
    for (var index = 0u; index < fused.transform_count; index++) {
        transform_rows(local, index, false);
    }
    store_rows(local, first);
    workgroupBarrier();
    prepare_density(local);
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < extent.rows {
            let determinant = log_det_of(row);
            log_det[first + row] = determinant;
            log_prob[first + row] = log_density(row, determinant);
        }
    }
}

@compute @workgroup_size(THREADS)
fn fused_inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = group.x * ROWS;
    load_rows(local, first);
    for (var place = 0u; place < fused.transform_count; place++) {
        transform_rows(local, fused.transform_count - 1u - place, true);
    }
    store_rows(local, first);
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < extent.rows {
            log_det[first + row] = log_det_of(row);
        }
    }
}
