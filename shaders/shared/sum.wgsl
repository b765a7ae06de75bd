// The sum over a workgroup of 256 threads by a fixed binary tree; every thread receives it.

var<workgroup> tree: array<f32, 256>;

fn sum_workgroup(local: u32, value: f32) -> f32 {
    tree[local] = value;
    workgroupBarrier();
    for (var stride = 128u; stride > 0u; stride /= 2u) {
        if local < stride {
            tree[local] += tree[local + stride];
        }
        workgroupBarrier();
    }
    let total = tree[0];
    // No thread may start the next sum before all have read this one.
    workgroupBarrier();
    return total;
}
