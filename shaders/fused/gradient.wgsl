// A batch's log-density and its gradient with respect to the parameters in one dispatch: the fused plan's step.
//
// Equation:  loss = mean(−log p) over the batch, back through all transforms; hidden activations are computed anew from
//            each coupling's saved input, so that activations take no more memory for more couplings.
// Threads:   a workgroup of THREADS takes ROWS rows, and further blocks of ROWS where the batch is larger than `groups`
//            of them; see rows.wgsl. A weight's gradient is made in blocks of 4 × 4 by one thread.
// Data:      data [N, D], found by the epoch's permutation; saved: for each transform and group its input [ROWS, QUADS],
//            then the numbers of θ that its bijector saves, those of two networks [number, ROWS, QUADS], else [place, quad,
//            ROWS], read by the thread that wrote them; partials [groups, slot] (layout.wgsl); report: the state before the
//            step, and log p of its rows.
// Order:     gradients are summed over increasing row within a block, then over the workgroup's blocks in order.
// Twin:      src/cpu/pass.rs

const EPOCH_STREAM: u32 = 1u;
// The gradients at the networks' outputs, network by network. Those of a single network take the place of its outputs:
// they are read before the gradient at its input is written there.
const AT_D_THETA: u32 = select(AT_END, AT_THETA, D_THETA == 0u);
const MEMORY: u32 = AT_END + ROWS * D_THETA;
// Quads of the numbers of θ of a feature that are saved.
const SAVED_QUADS: u32 = (SAVED + 3u) / 4u;

struct BatchReport {
    before: TrainState,
    log_prob: array<f32>,
}

@group(0) @binding(3) var<storage, read> state: TrainState;
@group(0) @binding(4) var<storage, read> data: array<f32>;
@group(0) @binding(5) var<storage, read_write> saved: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> report: BatchReport;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// Where a group's saved values lie: those from quad `first` of a row on, `count` to the row.
fn saved_at(first: u32, count: u32, group: u32) -> u32 {
    return (first * fused.groups + count * group) * ROWS;
}

// A quad of a transform's input.
fn input_at(step: Step, group: u32, quad: u32) -> u32 {
    return saved_at(step.saved, QUADS, group) + quad;
}

// The numbers of θ that are saved.
fn theta_at(step: Step, group: u32) -> u32 {
    let count = select(step.transformed * SAVED_QUADS, SAVED * QUADS, step.networks > 1u);
    return saved_at(step.saved + QUADS, count, group);
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
        saved[input_at(step, group, quad)] = value;
        if step.kind == COUPLING {
            memory[AT_KEPT + quad] = kept_part(step, quad, value);
        }
    }
}

// Saves the numbers of θ that the way back through a quad's bijectors needs.
fn save_theta(step: Step, group: u32, quad: u32) {
    let first = theta_at(step, group);
    if step.networks > 1u {
        for (var k = 0u; k < SAVED; k++) {
            saved[first + k * ROW_QUADS + quad] = output_quad(step, k, quad / QUADS, quad % QUADS);
        }
        return;
    }
    let places = roles_of(step, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let at = element(quad, lane, places[lane]);
            for (var numbers = 0u; numbers < SAVED_QUADS; numbers++) {
                let place = first + (at.place * SAVED_QUADS + numbers) * ROWS + at.row;
                saved[place] = theta_quad(step, at, numbers);
            }
        }
    }
}

fn saved_theta(step: Step, group: u32, at: Element) -> Theta {
    let first = theta_at(step, group);
    var theta: Theta;
    if step.networks > 1u {
        for (var k = 0u; k < SAVED; k++) {
            theta[k] = saved[first + (k * ROWS + at.row) * QUADS + at.feature / 4u][at.feature % 4u];
        }
        return theta;
    }
    for (var quad = 0u; quad < SAVED_QUADS; quad++) {
        set_numbers(&theta, quad, saved[first + (at.place * SAVED_QUADS + quad) * ROWS + at.row]);
    }
    return theta;
}

// Weight of a row in the loss, which is a mean.
fn per_row() -> f32 {
    return 1.0 / f32(state.rows);
}

// What a coupling's networks left of the gradient at a quad of its input.
fn network_gradient(step: Step, quad: u32) -> vec4<f32> {
    var all = vec4<f32>();
    for (var network = 0u; network < step.networks; network++) {
        let at = AT_THETA + network * SLICES * ROW_QUADS + quad;
        var sum = memory[at];
        for (var slice = 1u; slice < SLICES; slice++) {
            sum += memory[at + slice * ROW_QUADS];
        }
        all += sum;
    }
    return kept_part(step, quad, all);
}

// What comes back to transform number `transform` from the next one, or from the base density: AT_ROWS becomes the whole
// gradient at its result, and AT_KEPT the result. A coupling leaves the gradient in two parts, in AT_ROWS what came
// through its bijector and in AT_THETA what its networks add at kept features; here they are added.
fn receive_gradient(local: u32, transform: u32, group: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let at_hand = memory[AT_ROWS + quad];
        if transform + 1u == fused.transforms {
            memory[AT_KEPT + quad] = at_hand;
            memory[AT_ROWS + quad] = modelled_part(at_hand, quad % QUADS) * per_row();
            continue;
        }
        let next = fused.steps[transform + 1u];
        memory[AT_KEPT + quad] = saved[input_at(next, group, quad)];
        if next.kind == COUPLING {
            memory[AT_ROWS + quad] = at_hand + network_gradient(next, quad);
        }
    }
    workgroupBarrier();
}

// The gradient at θ of a transformed feature.
fn put_d_theta(step: Step, at: Element, d_theta: Theta) {
    if step.networks > 1u {
        for (var k = 0u; k < PARAMETERS; k++) {
            memory[AT_D_THETA + (k * ROWS + at.row) * QUADS + at.feature / 4u][at.feature % 4u] = d_theta[k];
        }
        return;
    }
    for (var quad = 0u; quad < PLACE_QUADS; quad++) {
        var numbers = vec4<f32>();
        for (var k = 4u * quad; k < min(4u * quad + 4u, PARAMETERS); k++) {
            numbers[k % 4u] = d_theta[k];
        }
        memory[AT_D_THETA + (at.row * step.transformed + at.place) * PLACE_QUADS + quad] = numbers;
    }
}

// Back through the bijectors of a quad, from the gradient d_z and the result that receive_gradient left: d_x, less what
// the networks will add, and the gradients at θ. Rows that do not count have none.
fn bijector_quad_backward(step: Step, group: u32, quad: u32, counts: bool) {
    let d_z = memory[AT_ROWS + quad];
    let input = saved[input_at(step, group, quad)];
    let value = select(memory[AT_KEPT + quad], input, FROM_INPUT);
    // Outputs that nobody reads have no gradient either.
    for (var network = 0u; step.networks > 1u && network < step.networks; network++) {
        memory[AT_D_THETA + network * ROW_QUADS + quad] = vec4<f32>();
    }
    var d_x = d_z;
    let places = roles_of(step, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let at = element(quad, lane, places[lane]);
            var gradient = BijectorGradient();
            if counts {
                let theta = saved_theta(step, group, at);
                gradient = bijector_backward(d_z[lane], -per_row(), value[lane], theta, step.bound);
            }
            d_x[lane] = gradient.d_x;
            put_d_theta(step, at, gradient.d_theta);
        }
    }
    memory[AT_ROWS + quad] = select(vec4<f32>(), d_x, counts);
    memory[AT_KEPT + quad] = kept_part(step, quad, input);
}

// Back through an actnorm: AT_ROWS from the gradient at its result to d_x, and the gradients of its shifts and log-scales
// to the slot.
fn actnorm_rows_backward(local: u32, group: u32, step: Step, first: u32, add: bool) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let d_z = memory[AT_ROWS + quad];
        let z = memory[AT_KEPT + quad];
        let counts = first + quad / QUADS < state.rows;
        let shrink = exp_quad(-packed[step.weights + QUADS + quad % QUADS]);
        let d_x = select(vec4<f32>(), d_z * shrink, counts);
        let d_s = select(vec4<f32>(), vec4<f32>(per_row()) - d_z * z, counts);
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
            report.log_prob[first + row] = density_of(row).y;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn fused_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = workgroup.x;
    if group == 0u && local == 0u {
        report.before = state;
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
            if back {
                receive_gradient(local, transform, group);
            } else {
                save_input(local, group, step);
            }
            if step.kind == COUPLING {
                for (var quad = local; back && quad < ROW_QUADS; quad += THREADS) {
                    bijector_quad_backward(step, group, quad, first + quad / QUADS < state.rows);
                }
                workgroupBarrier();
                for (var network = 0u; network < step.networks; network++) {
                    through_network(local, transform, network, group, back, add);
                }
                for (var quad = local; !back && quad < ROW_QUADS; quad += THREADS) {
                    save_theta(step, group, quad);
                    transform_quad(step, quad, false);
                }
            } else if back {
                actnorm_rows_backward(local, group, step, first, add);
            } else {
                for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
                    normalise_quad(step, quad, false);
                }
            }
        }
    }
}
