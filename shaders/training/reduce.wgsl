// Partial gradients of the batch's splits become the gradient, and its squared norm begins to be summed.
//
// Equation:  gradient[p] = Σ_s partials[s, p];  norms[g] = Σ_p gradient[p]² over the parameters of workgroup g.
// Threads:   norm_groups workgroups of 256 stride over the parameters.
// Data:      partials [splits, P]; gradient [P]; norms [norm_groups].
// Order:     splits in increasing order; squares thread by thread, then by a fixed tree over the workgroup.
// Twin:      squared_norm in src/cpu/adam.rs

@group(0) @binding(0) var<uniform> rules: Rules;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;

@compute @workgroup_size(256)
fn sum_partials(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var squares = 0.0;
    for (var p = group.x * 256u + local; p < rules.parameters; p += rules.norm_groups * 256u) {
        var sum = 0.0;
        for (var split = 0u; split < rules.splits; split++) {
            sum += partials[split * rules.parameters + p];
        }
        gradient[p] = sum;
        squares += sum * sum;
    }
    let total = sum_workgroup(local, squares);
    if local == 0u {
        norms[group.x] = total;
    }
}
