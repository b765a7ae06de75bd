// A batch's log-density and its gradient with respect to the parameters in one dispatch: the fused plan's step.
//
// Equation:  loss = mean(−log p) over the batch, back through all transforms; hidden activations are computed anew from
//            each coupling's saved input, so that activations take no more memory for more couplings.
// Threads:   a workgroup of THREADS takes ROWS rows, and further blocks of ROWS where the batch is larger than `groups`
//            of them; see rows.wgsl. A weight's gradient is made in blocks of 4 × 4 by one thread.
// Data:      data [N, D], found by the epoch's permutation; saved [planes, groups, ROW_QUADS]: each transform's input, then
//            what its bijector saves, read by the thread that wrote them; partials [groups, slot] (layout.wgsl); outcome: the
//            state before the step, and log p of its rows.
// Order:     gradients are summed over increasing row within a block, then over the workgroup's blocks in order.
// Twin:      src/cpu/pass.rs

const EPOCH_STREAM: u32 = 1u;
// The gradients at the networks' outputs.
const AT_D_THETA: u32 = AT_END;
const MEMORY: u32 = AT_END + PARAMETERS * ROW_QUADS;

struct Outcome {
    before: TrainState,
    log_prob: array<f32>,
}

@group(0) @binding(3) var<storage, read> state: TrainState;
@group(0) @binding(4) var<storage, read> data: array<f32>;
@group(0) @binding(5) var<storage, read_write> saved: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> outcome: Outcome;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// Where a quad's values of a saved plane lie.
fn saved_at(plane: u32, group: u32, quad: u32) -> u32 {
    return (plane * fused.groups + group) * ROW_QUADS + quad;
}

fn gather_rows(local: u32, first: u32) {
    let rules = fused.rules;
    let key = vec2<u32>(rules.key_low, rules.key_high);
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        var value = vec4<f32>();
        let row = first + quad / QUADS;
        if row < state.rows {
            let found = permute(state.first + row, rules.train_rows, key, EPOCH_STREAM, state.epoch);
            let at = quad_at(found, quad % QUADS);
            for (var j = 0u; j < at.y; j++) {
                value[j] = data[at.x + j];
            }
        }
        memory[AT_ROWS + quad] = value;
        log_dets[quad] = 0.0;
    }
}

// Saves a transform's input, and takes the kept part of a coupling's to its networks.
fn save_input(local: u32, group: u32, step: Step) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let value = memory[AT_ROWS + quad];
        saved[saved_at(step.saved, group, quad)] = value;
        if step.kind == COUPLING {
            memory[AT_KEPT + quad] = select(vec4<f32>(), value, kept(step, quad));
        }
    }
}

// Forward through a coupling's bijector, saving what its way back needs.
fn bijector_rows(local: u32, group: u32, step: Step) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        var numbers = theta_quad(step, quad);
        for (var k = 0u; k < SAVED; k++) {
            saved[saved_at(step.saved + 1u + k, group, quad)] = numbers[k];
        }
        transform_quad(step, quad, false);
    }
}

// Weight of a row in the loss, which is a mean.
fn per_row() -> f32 {
    return 1.0 / f32(state.rows);
}

// The result of a transform (value), and the gradient at it (d_value).
struct Arrival {
    value: vec4<f32>,
    d_value: vec4<f32>,
}

// What comes back to transform number `transform` at a quad: from the base density, or from the next transform.
fn arrival(transform: u32, group: u32, quad: u32) -> Arrival {
    let at_hand = memory[AT_ROWS + quad];
    if transform + 1u == fused.transforms {
        return Arrival(at_hand, modelled_part(at_hand, quad % QUADS) * per_row());
    }
    let behind = fused.steps[transform + 1u];
    let value = saved[saved_at(behind.saved, group, quad)];
    if behind.kind != COUPLING {
        return Arrival(value, at_hand);
    }
    var sum = network_sum(0u, quad);
    for (var network = 1u; network < behind.networks; network++) {
        sum += network_sum(network, quad);
    }
    return Arrival(value, at_hand + select(vec4<f32>(), sum, kept(behind, quad)));
}

// Back through a coupling's bijector: AT_ROWS from what it holds to the direct part of d_x, and the gradients of θ.
fn bijector_rows_backward(local: u32, group: u32, transform: u32, first: u32) {
    let step = fused.steps[transform];
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let here = arrival(transform, group, quad);
        let d_z = here.d_value;
        let input = saved[saved_at(step.saved, group, quad)];
        let value = select(here.value, input, FROM_INPUT);
        var numbers: array<vec4<f32>, PARAMETERS>;
        for (var k = 0u; k < SAVED; k++) {
            numbers[k] = saved[saved_at(step.saved + 1u + k, group, quad)];
        }
        let keeps = kept(step, quad);
        var g0 = bijector_backward(d_z.x, -per_row(), value.x, theta_lane(&numbers, 0u), step.bound);
        var g1 = bijector_backward(d_z.y, -per_row(), value.y, theta_lane(&numbers, 1u), step.bound);
        var g2 = bijector_backward(d_z.z, -per_row(), value.z, theta_lane(&numbers, 2u), step.bound);
        var g3 = bijector_backward(d_z.w, -per_row(), value.w, theta_lane(&numbers, 3u), step.bound);
        // Rows beyond the batch have no gradient, nor have outputs that nobody reads.
        let counts = first + quad / QUADS < state.rows;
        let direct = select(vec4<f32>(g0.d_x, g1.d_x, g2.d_x, g3.d_x), d_z, keeps);
        memory[AT_ROWS + quad] = select(vec4<f32>(), direct, counts);
        let silent = keeps | vec4<bool>(!counts);
        for (var k = 0u; k < PARAMETERS; k++) {
            let d_theta = vec4<f32>(g0.d_theta[k], g1.d_theta[k], g2.d_theta[k], g3.d_theta[k]);
            memory[AT_D_THETA + k * ROW_QUADS + quad] = select(d_theta, vec4<f32>(), silent);
        }
        memory[AT_KEPT + quad] = select(vec4<f32>(), input, keeps);
    }
}

// Back through an actnorm: AT_ROWS from what it holds to d_x, and the gradients of its shifts and log-scales to the slot.
fn actnorm_rows_backward(local: u32, group: u32, transform: u32, first: u32, add: bool) {
    let step = fused.steps[transform];
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let here = arrival(transform, group, quad);
        let counts = first + quad / QUADS < state.rows;
        let shrink = exp_quad(-packed[step.weights + QUADS + quad % QUADS]);
        let d_x = select(vec4<f32>(), here.d_value * shrink, counts);
        let d_s = select(vec4<f32>(), vec4<f32>(per_row()) - here.d_value * here.value, counts);
        memory[AT_ROWS + quad] = d_x;
        memory[AT_D_THETA + quad] = modelled_part(-d_x, quad % QUADS);
        memory[AT_D_THETA + ROW_QUADS + quad] = modelled_part(d_s, quad % QUADS);
    }
    workgroupBarrier();
    let slot = group * fused.slot_quads + step.slot;
    for (var place = local; place < 2u * QUADS; place += THREADS) {
        let plane = AT_D_THETA + place / QUADS * ROW_QUADS + place % QUADS;
        var sum = vec4<f32>();
        for (var row = 0u; row < ROWS; row++) {
            sum += memory[plane + row * QUADS];
        }
        put_partial(slot + place, sum, add);
    }
    workgroupBarrier();
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
        let add = first != group * ROWS;
        // All transforms forwards, then all of them backwards.
        for (var place = 0u; place < 2u * fused.transforms; place++) {
            let back = place >= fused.transforms;
            let transform = select(place, 2u * fused.transforms - 1u - place, back);
            let step = fused.steps[transform];
            if place == fused.transforms {
                put_log_prob(local, first);
            }
            if !back {
                save_input(local, group, step);
            }
            if step.kind == COUPLING {
                if back {
                    bijector_rows_backward(local, group, transform, first);
                }
                workgroupBarrier();
                for (var network = 0u; network < step.networks; network++) {
                    through_network(local, transform, network, group, back, add);
                }
                if !back {
                    bijector_rows(local, group, step);
                }
            } else if back {
                actnorm_rows_backward(local, group, transform, first, add);
            } else {
                for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
                    normalise_quad(step, quad, false);
                }
            }
        }
    }
}
