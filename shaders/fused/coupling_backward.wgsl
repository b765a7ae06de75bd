// Back through a coupling's bijectors.
//
// Equation:  that of bijector_backward; θ is saved in the forward pass.
// Threads:   each takes the transformed features of its quads.
// Data:      saved, behind a coupling's input: the numbers of θ that its bijector needs, those of two networks [number, ROWS,
//            QUADS], else [place, quad, ROWS]. AT_D_THETA: the gradients at θ, in the layout of a network's outputs.
// Order:     no sums.
// Twin:      src/cpu/coupling.rs. Follows coupling.wgsl; the text with the entry point has saved and memory.

// Quads of the numbers of θ of a feature that are saved.
const SAVED_QUADS: u32 = (SAVED + 3u) / 4u;

// The numbers of θ that are saved.
fn theta_at(transform: FusedTransform, group: u32) -> u32 {
    let count = select(transform.transformed * SAVED_QUADS, SAVED * QUADS, transform.networks > 1u);
    return saved_at(transform.saved + QUADS, count, group);
}

// Saves the numbers of θ that the backward pass of a quad's bijectors needs.
fn save_theta(transform: FusedTransform, group: u32, quad: u32) {
    let first = theta_at(transform, group);
    if transform.networks > 1u {
        for (var k = 0u; k < SAVED; k++) {
            saved[first + k * ROW_QUADS + quad] = output_quad(transform, k, quad / QUADS, quad % QUADS);
        }
        return;
    }
    let places = roles_of(transform, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let at = element(quad, lane, places[lane]);
            for (var numbers = 0u; numbers < SAVED_QUADS; numbers++) {
                let place = first + (at.place * SAVED_QUADS + numbers) * ROWS + at.row;
                saved[place] = theta_quad(transform, at, numbers);
            }
        }
    }
}

fn saved_theta(transform: FusedTransform, group: u32, at: Element) -> Theta {
    let first = theta_at(transform, group);
    var theta: Theta;
    if transform.networks > 1u {
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

// The gradient at θ of a transformed feature.
fn put_d_theta(transform: FusedTransform, at: Element, d_theta: Theta) {
    if transform.networks > 1u {
        for (var k = 0u; k < NUMBERS; k++) {
            memory[AT_D_THETA + (k * ROWS + at.row) * QUADS + at.feature / 4u][at.feature % 4u] = d_theta[k];
        }
        return;
    }
    for (var quad = 0u; quad < PLACE_QUADS; quad++) {
        var numbers = vec4<f32>();
        for (var lane = 0u; lane < 4u; lane++) {
            if 4u * quad + lane < NUMBERS {
                numbers[lane] = d_theta[4u * quad + lane];
            }
        }
        memory[AT_D_THETA + (at.row * transform.transformed + at.place) * PLACE_QUADS + quad] = numbers;
    }
}

// Back through the bijectors of a quad, from the gradient d_z and the result that receive_gradient left: d_x, less what
// the networks will add, and the gradients at θ. Rows beyond the batch have none.
fn bijector_quad_backward(transform: FusedTransform, group: u32, quad: u32, counts: bool, factor: f32) {
    let d_z = memory[AT_ROWS + quad];
    let input = saved[input_at(transform, group, quad)];
    let value = select(memory[AT_KEPT + quad], input, FROM_INPUT);
    // Outputs that are not read have no gradient either.
    for (var network = 0u; transform.networks > 1u && network < transform.networks; network++) {
        memory[AT_D_THETA + network * ROW_QUADS + quad] = vec4<f32>();
    }
    var d_x = d_z;
    let places = roles_of(transform, quad);
    for (var lane = 0u; lane < 4u; lane++) {
        if places[lane] != KEPT {
            let at = element(quad, lane, places[lane]);
            var gradient = BijectorGradient();
            if counts {
                let theta = saved_theta(transform, group, at);
                gradient = bijector_backward(d_z[lane], -factor, value[lane], theta, transform.bound);
            }
            d_x[lane] = gradient.d_x;
            put_d_theta(transform, at, gradient.d_theta);
        }
    }
    memory[AT_ROWS + quad] = select(vec4<f32>(), d_x, counts);
    memory[AT_KEPT + quad] = kept_part(transform, quad, input);
}

