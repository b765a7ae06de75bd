// The affine coupling backward, one element at a time, for the loss mean(−log p): d_t = −d_z · exp(−s),
// d_s = 1/rows − d_z · z, d_o = d_s · (1 − tanh²(o / c)), and d_z · exp(−s) is carried on to the coupling's input.
// source holds the coupling's output z.

@group(0) @binding(7) var<storage, read> raw: array<f32>;
// [3, capacity, D]: what is carried from coupling to coupling, d_o, d_t. The latter two only at transformed features.
@group(0) @binding(8) var<storage, read_write> d_coupling: array<f32>;

fn pass_through(row: u32, feature: u32, d_z: f32) {
    let index = row * layer.features + feature;
    if order[layer.through + layer.features + feature] == 1u {
        d_coupling[index] = d_z;
        return;
    }
    let plane = layer.capacity * layer.features;
    let gradient = affine_backward(d_z, -1.0 / f32(extent.rows), source[index], raw[index], layer.bound);
    d_coupling[index] = gradient.x;
    d_coupling[plane + index] = gradient.y;
    d_coupling[2u * plane + index] = gradient.z;
}
