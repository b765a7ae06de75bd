// Evaluation by the fused plan: a block of rows goes through all couplings in one dispatch, in either direction.
//
// Equation:  forward z = f(x), log p(x) = log_det − ½ Σ_j z_j² − M/2 · ln 2π over the M modelled
//            features; inverse x = f⁻¹(z).
// Threads:   a workgroup of THREADS takes ROWS rows; see fused.wgsl.
// Data:      source [N, D], of which the rows from extent.first on are read; destination [capacity, D]; log_det and
//            log_prob [capacity].
// Order:     that of fused.wgsl; a row's log_det and squares are summed over increasing feature.
// Twin:      src/cpu/mod.rs

const MEMORY: u32 = AT_END;

@group(0) @binding(3) var<storage, read> extent: Extent;
@group(0) @binding(4) var<storage, read> source: array<f32>;
@group(0) @binding(5) var<storage, read_write> destination: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_det: array<f32>;
@group(0) @binding(7) var<storage, read_write> log_prob: array<f32>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

fn load_rows(local: u32, first: u32) {
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        var value = vec4<f32>();
        let row = first + spot / QUADS;
        if row < extent.rows {
            let at = quad_at(extent.first + row, spot % QUADS);
            for (var j = 0u; j < at.y; j++) {
                value[j] = source[at.x + j];
            }
        }
        memory[AT_ROWS + spot] = value;
        log_dets[spot] = 0.0;
    }
}

fn store_rows(local: u32, first: u32) {
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        let value = memory[AT_ROWS + spot];
        let row = first + spot / QUADS;
        if row < extent.rows {
            let at = quad_at(row, spot % QUADS);
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
    for (var transform = 0u; transform < fused.couplings; transform++) {
        carry(local, transform, false);
    }
    store_rows(local, first);
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < extent.rows {
            let sums = density_of(row);
            log_det[first + row] = sums.x;
            log_prob[first + row] = sums.y;
        }
    }
}

@compute @workgroup_size(THREADS)
fn fused_inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = group.x * ROWS;
    load_rows(local, first);
    for (var place = 0u; place < fused.couplings; place++) {
        carry(local, fused.couplings - 1u - place, true);
    }
    store_rows(local, first);
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < extent.rows {
            log_det[first + row] = density_of(row).x;
        }
    }
}
