// The workgroups' partial gradients become the gradient, and its squared norm begins to be summed.
//
// Equation:  gradient[p] = Σ_s partials[s, slot_places[p]], divided by the sum of the batch's weights where WEIGHTED is 1;
//            gradient[P + g] = Σ_p gradient[p]² over workgroup g's parameters.
// Threads:   norm_groups workgroups of 256 stride over the parameters.
// Data:      partials [groups, slot] (layout.wgsl); slot_places [P]: where a slot has each
//            parameter, or NOWHERE; gradient [P + norm_groups].
// Order:     slots in increasing order; squares thread by thread, then by a fixed tree over the workgroup.
// Twin:      squared_norm in src/cpu/adam.rs

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> slot_places: array<u32>;
@group(0) @binding(2) var<storage, read> partials: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(4) var<storage, read> report: BatchReport;

// What the gradient is multiplied by for weights: none where no row counts.
fn weight_scale(local: u32) -> f32 {
    var sum = 0.0;
    for (var row = local; row < report.before.rows; row += 256u) {
        sum += report.rows[fused.rules.batch + row];
    }
    let total = sum_workgroup(local, sum);
    return select(0.0, 1.0 / (weight_unit(fused.rules, report.before.rows) * total), total > 0.0);
}

@compute @workgroup_size(256)
fn fused_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let slot = 4u * fused.slot_quads;
    var scale = 1.0;
    if WEIGHTED == 1u {
        scale = weight_scale(local);
    }
    var squares = 0.0;
    for (var p = group.x * 256u + local; p < fused.rules.parameters; p += fused.rules.norm_groups * 256u) {
        let at = slot_places[p];
        var sum = 0.0;
        for (var partial = 0u; at != NOWHERE && partial < fused.groups; partial++) {
            sum += partials[partial * slot + at];
        }
        if WEIGHTED == 1u {
            sum *= scale;
        }
        gradient[p] = sum;
        squares += sum * sum;
    }
    let total = sum_workgroup(local, squares);
    if local == 0u {
        gradient[fused.rules.parameters + group.x] = total;
    }
}
