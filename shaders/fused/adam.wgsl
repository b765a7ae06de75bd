// The fused plan's update: clip, Adam and the advance of the training state, in one dispatch.
//
// Equation:  that of optimiser.wgsl.
// Threads:   workgroups of 256 stride over the parameters; each sums the norm and the loss for itself, from the state
//            that the step began with, and the first one's first thread leaves the advanced state.
// Data:      report (layout.wgsl); gradient [P + norm_groups], its squared norm's parts after it; parameters, moment1,
//            moment2 [P]; places [P]: where packed has both copies of each parameter, or NOWHERE.
// Order:     sums thread by thread with stride 256, then by a fixed tree: every workgroup has the same bits.
// Twin:      advance and adam in src/cpu/adam.rs

@group(0) @binding(0) var<uniform> fused: Fused;
@group(0) @binding(1) var<storage, read> report: BatchReport;
@group(0) @binding(2) var<storage, read> places: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: TrainState;
@group(0) @binding(5) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(6) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(7) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(8) var<storage, read_write> packed: array<f32>;

@compute @workgroup_size(256)
fn fused_adam(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let rules = fused.rules;
    var squares = 0.0;
    for (var i = local; i < rules.norm_groups; i += 256u) {
        squares += gradient[rules.parameters + i];
    }
    let squared_norm = sum_workgroup(local, squares);
    var log_probs = 0.0;
    for (var i = local; i < report.before.rows; i += 256u) {
        log_probs += report.rows[i];
    }
    let nll = -sum_workgroup(local, log_probs);
    let update = advanced(rules, report.before, squared_norm, nll);
    if group.x == 0u && local == 0u {
        state = update;
    }
    if update.halted == 1u {
        return;
    }
    for (var p = group.x * 256u + local; p < rules.parameters; p += groups.x * 256u) {
        let updated = adam_update(rules, update, gradient[p], parameters[p], vec2<f32>(moment1[p], moment2[p]));
        parameters[p] = updated.x;
        moment1[p] = updated.y;
        moment2[p] = updated.z;
        let at = places[p];
        if at.x != NOWHERE {
            packed[at.x] = updated.x;
            packed[at.y] = updated.x;
        }
    }
}
