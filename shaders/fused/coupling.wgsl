// A coupling's bijectors, with θ from its networks.
//
// Equation:  z_j = bijector(x_j; θ_j(mask ⊙ x)) for what the mask does not keep, the rest passes.
// Threads:   each takes the transformed features of its quads of AT_ROWS.
// Data:      θ in slices at AT_THETA (product.wgsl), to which the last layer's bias is added here; see layout.wgsl for its columns.
// Order:     a row's log_det is summed over the features of a quad in pairs.
// Twin:      src/cpu/coupling.rs. Follows network.wgsl.

// Quads of the numbers of θ of a feature.
const PLACE_QUADS: u32 = (NUMBERS + 3u) / 4u;

// A quad of a row of what a network gives out: its bias and the sum of its slices.
fn output_quad(transform: FusedTransform, network: u32, row: u32, quad: u32) -> vec4<f32> {
    let last = fused.spans[transform.spans + transform.depth - 1u];
    let at = AT_THETA + (network * OUTPUT_SLICES * ROWS + row) * last.output_quads + quad;
    var sum = memory[at];
    for (var slice = 1u; slice < OUTPUT_SLICES; slice++) {
        sum += memory[at + slice * ROWS * last.output_quads];
    }
    return packed[transform.weights + network * transform.weights_stride + last.bias + quad] + sum;
}

// A transformed feature of a row, and its place among them.
struct Element {
    row: u32,
    feature: u32,
    place: u32,
}

fn element(quad: u32, lane: u32, place: u32) -> Element {
    return Element(quad / QUADS, 4u * (quad % QUADS) + lane, place);
}

// Numbers 4 · quad to 4 · quad + 3 of θ; those beyond NUMBERS are of no meaning.
fn theta_quad(transform: FusedTransform, at: Element, quad: u32) -> vec4<f32> {
    if transform.networks == 1u {
        return output_quad(transform, 0u, at.row, at.place * PLACE_QUADS + quad);
    }
    var numbers = vec4<f32>();
    for (var k = 4u * quad; k < min(4u * quad + 4u, NUMBERS); k++) {
        numbers[k % 4u] = output_quad(transform, k, at.row, at.feature / 4u)[at.feature % 4u];
    }
    return numbers;
}

// Puts a quad of numbers into θ.
fn set_numbers(theta: ptr<function, Theta>, quad: u32, numbers: vec4<f32>) {
    for (var lane = 0u; lane < 4u; lane++) {
        if 4u * quad + lane < NUMBERS {
            (*theta)[4u * quad + lane] = numbers[lane];
        }
    }
}

fn theta_of(transform: FusedTransform, at: Element) -> Theta {
    var theta: Theta;
    for (var quad = 0u; quad < PLACE_QUADS; quad++) {
        set_numbers(&theta, quad, theta_quad(transform, at, quad));
    }
    return theta;
}

fn bijector(value: f32, theta: Theta, bound: f32, inverse: bool) -> vec2<f32> {
    if inverse {
        return bijector_inverse(value, theta, bound);
    }
    return bijector_forward(value, theta, bound);
}

// The bijector on the transformed features of a quad: values and log-determinant.
fn transform_quad(transform: FusedTransform, quad: u32, inverse: bool) {
    var value = memory[AT_ROWS + quad];
    var log_det = vec4<f32>();
    let places = roles_of(transform, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let theta = theta_of(transform, element(quad, lane, places[lane]));
            let result = bijector(value[lane], theta, transform.bound, inverse);
            value[lane] = result.x;
            log_det[lane] = result.y;
        }
    }
    memory[AT_ROWS + quad] = value;
    log_dets[quad] += (log_det.x + log_det.y) + (log_det.z + log_det.w);
}

