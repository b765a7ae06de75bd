// A batch's log-density and its gradient with respect to the parameters in one dispatch: the fused plan's step.
//
// Equation:  loss = mean(−log p) over the batch, back through all couplings; hidden activations are computed anew from
//            each coupling's stored input, so that activations take no more memory for more couplings.
// Threads:   a workgroup of THREADS takes ROWS rows, and further blocks of ROWS where the batch is larger than `groups`
//            of them; see fused.wgsl. A weight's gradient is made in blocks of 4 × 4 by one thread.
// Data:      data [N, D], found by the epoch's permutation; trail [2 L, groups, SPOTS]: each coupling's input, then its
//            raw log-scale, read by the thread that wrote them; partials [groups, slot] (fused_layout.wgsl); outcome: the state before the
//            step, and log p of its rows.
// Order:     gradients are summed over increasing row within a block, then over the workgroup's blocks in order.
// Twin:      src/cpu/pass.rs

const EPOCH_STREAM: u32 = 1u;
// The gradients at both networks' outputs.
const AT_D_RAW: u32 = AT_END;
const MEMORY: u32 = AT_END + 2u * SPOTS;

struct Outcome {
    before: TrainState,
    log_prob: array<f32>,
}

@group(0) @binding(3) var<storage, read> state: TrainState;
@group(0) @binding(4) var<storage, read> data: array<f32>;
@group(0) @binding(5) var<storage, read_write> trail: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> outcome: Outcome;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// Where a spot's values of a place on the trail lie: place i < L for the input of coupling i, L + i for its log-scale.
fn trail_at(place: u32, group: u32, spot: u32) -> u32 {
    return (place * fused.groups + group) * SPOTS + spot;
}

fn gather_rows(local: u32, first: u32) {
    let rules = fused.rules;
    let key = vec2<u32>(rules.key_low, rules.key_high);
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        var value = vec4<f32>();
        let row = first + spot / QUADS;
        if row < state.rows {
            let found = permute(state.first + row, rules.train_rows, key, EPOCH_STREAM, state.epoch);
            let at = quad_at(found, spot % QUADS);
            for (var j = 0u; j < at.y; j++) {
                value[j] = data[at.x + j];
            }
        }
        memory[AT_ROWS + spot] = value;
        log_dets[spot] = 0.0;
    }
}

// The kept part of a coupling's input, which stays on the trail.
fn keep(local: u32, group: u32, transform: u32) {
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        let value = memory[AT_ROWS + spot];
        trail[trail_at(transform, group, spot)] = value;
        memory[AT_KEPT + spot] = select(vec4<f32>(), value, kept(transform, spot));
    }
}

// Forward through a coupling's bijector, leaving its raw log-scales on the trail.
fn turn(local: u32, group: u32, transform: u32) {
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        trail[trail_at(fused.couplings + transform, group, spot)] = raw_output(transform, 0u, spot);
        move_spot(transform, spot, false);
    }
}

// Back through a coupling's bijector: AT_ROWS from d_z to the direct part of d_x, and the networks' gradients.
fn turn_back(local: u32, group: u32, transform: u32, first: u32) {
    let per_row = 1.0 / f32(state.rows);
    for (var spot = local; spot < SPOTS; spot += THREADS) {
        var z = memory[AT_ROWS + spot];
        var d_z = z * per_row;
        if transform + 1u < fused.couplings {
            d_z = z + select(vec4<f32>(), raw_sum(0u, spot) + raw_sum(1u, spot), kept(transform + 1u, spot));
            z = trail[trail_at(transform + 1u, group, spot)];
        }
        let o = trail[trail_at(fused.couplings + transform, group, spot)];
        let keeps = kept(transform, spot);
        let g0 = affine_backward(d_z.x, -per_row, z.x, o.x, fused.bound);
        let g1 = affine_backward(d_z.y, -per_row, z.y, o.y, fused.bound);
        let g2 = affine_backward(d_z.z, -per_row, z.z, o.z, fused.bound);
        let g3 = affine_backward(d_z.w, -per_row, z.w, o.w, fused.bound);
        // Rows beyond the batch have no gradient, nor have outputs that nobody reads.
        let counts = first + spot / QUADS < state.rows;
        let direct = select(vec4<f32>(g0.x, g1.x, g2.x, g3.x), d_z, keeps);
        memory[AT_ROWS + spot] = select(vec4<f32>(), direct, counts);
        let silent = keeps | vec4<bool>(!counts);
        memory[AT_D_RAW + spot] = select(vec4<f32>(g0.y, g1.y, g2.y, g3.y), vec4<f32>(), silent);
        memory[AT_D_RAW + SPOTS + spot] = select(vec4<f32>(g0.z, g1.z, g2.z, g3.z), vec4<f32>(), silent);
        let input = trail[trail_at(transform, group, spot)];
        memory[AT_KEPT + spot] = select(vec4<f32>(), input, keeps);
    }
}

// log p of the rows that have become latent.
fn put_log_prob(local: u32, first: u32) {
    workgroupBarrier();
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < state.rows {
            outcome.log_prob[first + row] = density_of(row).y;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn fused_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = workgroup.x;
    if group == 0u && local == 0u {
        outcome.before = state;
    }
    // A group without rows still has to write zeros.
    for (var first = group * ROWS; first == group * ROWS || first < state.rows; first += fused.groups * ROWS) {
        gather_rows(local, first);
        // All couplings forwards, then all of them backwards.
        for (var place = 0u; place < 2u * fused.couplings; place++) {
            let back = place >= fused.couplings;
            let transform = select(place, 2u * fused.couplings - 1u - place, back);
            if place == fused.couplings {
                put_log_prob(local, first);
            }
            if back {
                turn_back(local, group, transform, first);
            } else {
                keep(local, group, transform);
            }
            workgroupBarrier();
            for (var network = 0u; network < 2u; network++) {
                through_network(local, transform, network, group, back, first != group * ROWS);
            }
            if !back {
                turn(local, group, transform);
            }
        }
    }
}
