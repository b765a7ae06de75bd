// A batch's log-density and its gradient with respect to the parameters in one dispatch: the fused plan's step.
//
// Equation:  loss = Σ factor · (−log p) over the batch, back through all transforms, the factor 1 / rows, or proportional to
//            a row's weight where WEIGHTED is 1; hidden activations are computed anew from each coupling's saved input, so
//            that activations take no more memory for more couplings; those of the last transform may still be there.
// Threads:   a workgroup of THREADS takes ROWS rows, and further blocks of ROWS where the batch is larger than `groups`
//            of them; see rows.wgsl. A weight's gradient is made in blocks of 4 × 4 by one thread.
// Data:      data [N, D], found by the epoch's permutation; saved: for each transform and group its input [ROWS, QUADS],
//            then what its kind saves, read by the thread that wrote it; partials [groups, slot] and report (layout.wgsl);
//            row_weights [N].
// Order:     gradients are summed over increasing row within a block, then over the workgroup's blocks in order.
// Twin:      loss_and_gradient in src/cpu/pass.rs

const EPOCH_STREAM: u32 = 1u;
// The gradients at the networks' outputs, network by network. Those of a single network take the place of its outputs:
// they are read before the gradient at its input is written there.
const AT_D_THETA: u32 = select(AT_END, AT_THETA, D_THETA == 0u);
const MEMORY: u32 = AT_END + ROWS * D_THETA;

@group(0) @binding(3) var<storage, read> state: TrainState;
@group(0) @binding(4) var<storage, read> data: array<f32>;
@group(0) @binding(5) var<storage, read_write> saved: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> report: BatchReport;
@group(0) @binding(8) var<storage, read> row_weights: array<f32>;

var<workgroup> memory: array<vec4<f32>, MEMORY>;

// Where a group's saved values lie: those from quad `first` of a row on, `count` to the row.
fn saved_at(first: u32, count: u32, group: u32) -> u32 {
    return (first * fused.groups + count * group) * ROWS;
}

// A quad of a transform's input.
fn input_at(transform: FusedTransform, group: u32, quad: u32) -> u32 {
    return saved_at(transform.saved, QUADS, group) + quad;
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
            if WEIGHTED == 1u && quad % QUADS == 0u {
                report.rows[rules.batch + row] = row_weights[found];
            }
        }
        memory[AT_ROWS + quad] = value;
        log_dets[quad] = 0.0;
    }
    if WEIGHTED == 1u {
        storageBarrier();
    }
}

// Saves a transform's input, and takes to its networks what they read of it.
fn save_input(local: u32, group: u32, transform: FusedTransform) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let value = memory[AT_ROWS + quad];
        saved[input_at(transform, group, quad)] = value;
        memory[AT_KEPT + quad] = kept_part(transform, quad, value);
    }
}

// The factor of a row in the loss. With weights it lacks their sum over the batch, by which fused_sum divides.
fn row_factor(row: u32) -> f32 {
    if WEIGHTED == 0u {
        return 1.0 / f32(state.rows);
    }
    if row >= state.rows {
        return 0.0;
    }
    return report.rows[fused.rules.batch + row] * weight_unit(fused.rules, state.rows);
}

// What a coupling's networks left of the gradient at a quad of its input.
fn network_gradient(transform: FusedTransform, quad: u32) -> vec4<f32> {
    var all = vec4<f32>();
    for (var network = 0u; network < transform.networks; network++) {
        all += sum_of_slices(AT_THETA + network * SLICES * ROW_QUADS, quad);
    }
    return kept_part(transform, quad, all);
}

// What comes back to transform number `index` from the next one: AT_ROWS becomes the whole gradient at its result, and
// AT_KEPT the result, where the base density has not left both. A coupling leaves the gradient in two parts, in AT_ROWS
// what came through its bijector and in AT_THETA what its networks add at kept features; here they are added.
fn receive_gradient(local: u32, index: u32, group: u32) {
    for (var quad = local; index + 1u < fused.transform_count && quad < ROW_QUADS; quad += THREADS) {
        let at_hand = memory[AT_ROWS + quad];
        let next = fused.transforms[index + 1u];
        memory[AT_KEPT + quad] = saved[input_at(next, group, quad)];
        if next.kind == COUPLING {
            memory[AT_ROWS + quad] = at_hand + network_gradient(next, quad);
        }
    }
    // A slower thread may still read there.
    if AT_D_THETA == AT_THETA {
        workgroupBarrier();
    }
}

// The forward pass of a transform after its networks.
fn end_forward(local: u32, group: u32, transform: FusedTransform) {
    if transform.kind == PERMUTATION {
        permute_rows(local, transform, false);
        return;
    }
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        switch transform.kind {
            case COUPLING: {
                save_theta(transform, group, quad);
                transform_quad(transform, quad, false);
            }
            case ACTNORM: { normalise_quad(transform, quad, false); }
            default: { lu_quad(transform, quad); }
        }
    }
}

// The backward pass of a transform before its networks.
fn begin_backward(local: u32, group: u32, transform: FusedTransform, first: u32) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let row = first + quad / QUADS;
        let counts = row < state.rows;
        switch transform.kind {
            case COUPLING: { bijector_quad_backward(transform, group, quad, counts, row_factor(row)); }
            case LU: { lu_begin_backward(transform, group, quad, counts); }
            default: {}
        }
    }
}

// The backward pass of a transform after its networks.
fn end_backward(local: u32, group: u32, transform: FusedTransform, first: u32) {
    switch transform.kind {
        case ACTNORM: { actnorm_backward(local, group, transform, first); }
        case PERMUTATION: { permute_rows(local, transform, true); }
        case LU: {
            for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
                lu_end_backward(transform, quad);
            }
        }
        default: {}
    }
}

// log p of the rows that have become latent, times their weights where they have any.
fn put_log_prob(local: u32, first: u32) {
    workgroupBarrier();
    prepare_density(local);
    for (var row = local; row < ROWS; row += THREADS) {
        if first + row < state.rows {
            var log_prob = log_density(row, log_det_of(row));
            if WEIGHTED == 1u {
                // A row that does not count may have any log p.
                let weight = report.rows[fused.rules.batch + first + row];
                log_prob = select(weight * log_prob, 0.0, weight == 0.0);
            }
            report.rows[first + row] = log_prob;
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
        // All transforms forwards, then all of them backwards.
        for (var place = 0u; place < 2u * fused.transform_count; place++) {
            let back = place >= fused.transform_count;
            let index = select(place, 2u * fused.transform_count - 1u - place, back);
            let transform = fused.transforms[index];
            if place == fused.transform_count {
                put_log_prob(local, first);
                base_backward(local, group, first);
            }
            if back {
                receive_gradient(local, index, group);
                begin_backward(local, group, transform, first);
            } else {
                save_input(local, group, transform);
            }
            workgroupBarrier();
            for (var lead = 0u; lead < transform.networks; lead += TEAMS) {
                through_network(local, index, lead, group, first, back);
            }
            if back {
                end_backward(local, group, transform, first);
            } else {
                end_forward(local, group, transform);
            }
        }
    }
}
