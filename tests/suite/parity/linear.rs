//! `shaders/layered/linear.wgsl` and `shaders/layered/linear_backward.wgsl` against `src/cpu/reference/linear.rs`.

use moonflow::cpu::Real;
use moonflow::flow::Activation;
use moonflow::gpu::kernel::{LINEAR_BACKWARD, LINEAR_FORWARD};
use moonflow::gpu::plan::grid;

use super::harness::{Case, POISON, poisoned, real};
use super::layer::{Form, Place, Setup, Size, TILES, pick};

/// One, few, and every side of a tile of 64 and a depth of 16. Those that find most mistakes soonest come first.
const SIZES: [Size; 9] = [
    (3, 5, 2, 3),
    (130, 133, 96, 40),
    (65, 70, 64, 65),
    (1, 1, 2, 2),
    (1, 3, 3, 2),
    (63, 64, 16, 17),
    (64, 64, 17, 16),
    (130, 130, 65, 64),
    (65, 128, 40, 96),
];

/// Activation and tile, each of every kind. The pipelines that find most mistakes soonest come first.
const PIPELINES: [(Activation, usize); 7] = [
    (Activation::Silu, 0),
    (Activation::Relu, 1),
    (Activation::Tanh, 6),
    (Activation::LeakyRelu, 2),
    (Activation::Relu, 3),
    (Activation::Silu, 4),
    (Activation::Relu, 5),
];

/// One network, which yields 2 or 5 numbers of θ for each feature, and residual blocks.
const FORMS: [(Form, Activation, usize); 3] = [
    (Form::joint(Place::Last, 2), Activation::Silu, 6),
    (Form { activated: false, adds: true, ..Form::joint(Place::Last, 5) }, Activation::Tanh, 1),
    (Form { adds: true, ..Form::joint(Place::Hidden, 1) }, Activation::Tanh, 0),
];

/// Every size with every pipeline: two networks at either of `places` in alternation, then [`FORMS`].
fn setups(places: [Place; 2]) -> impl Iterator<Item = Setup> {
    let separate = PIPELINES
        .into_iter()
        .enumerate()
        .map(move |(turn, (activation, tile))| (Form::separate(places[turn % 2]), activation, tile));
    let setups = separate.chain(FORMS).enumerate().flat_map(move |(turn, (form, activation, tile))| {
        SIZES
            .into_iter()
            .enumerate()
            .map(move |(at, size)| Setup::new(size, form, activation, (at + turn) % 2, TILES[tile]))
    });
    setups.filter(|setup| setup.used().iter().all(|&used| used > 0))
}

/// A network's results, with what a skip connection adds.
fn results<R: Real>(setup: &Setup, network: usize) -> Vec<R> {
    let mut results = setup.forward::<R>(network);
    if setup.form.adds {
        let added = real::<R>(&setup.added[network]);
        results.iter_mut().zip(added).for_each(|(result, added)| *result += added);
    }
    pick(&results, &setup.used_outputs())
}

pub fn linear_forward() -> Case {
    let call = |setup: Setup| {
        let networks = setup.form.networks;
        let skip = if setup.form.adds { setup.results(&setup.added) } else { vec![POISON; 4] };
        let mut call = setup
            .call(&setup.uniform(), setup.forward_groups(setup.used()[1], networks))
            .bind("skip", skip)
            .bind("destination", vec![POISON; setup.results(&setup.added).len()]);
        for network in 0..networks {
            let places = setup.outputs_at(network);
            call = call.expect("", places, results(&setup, network), &results(&setup, network));
        }
        call
    };
    Case {
        kernel: &LINEAR_FORWARD,
        factor: 4.0,
        calls: setups([Place::Hidden, Place::First]).map(call).collect(),
        changes: &[
            ("values[j] + parameters[bias_index(network, out)];", "values[j];"),
            ("= skip[index] + value;", "= value;"),
            (
                "out / NETWORK_NUMBERS] * NETWORK_NUMBERS + out % NETWORK_NUMBERS",
                "out / NETWORK_NUMBERS] * NETWORK_NUMBERS",
            ),
            (
                "out / NETWORK_NUMBERS] * NETWORK_NUMBERS + out % NETWORK_NUMBERS",
                "out % NETWORK_NUMBERS] * NETWORK_NUMBERS + out / NETWORK_NUMBERS",
            ),
            ("return row * layer.outputs;", "return row * layer.output_width;"),
            ("if ACTIVATED == 1u {", "if FIRST == 0u {"),
            ("return layer.bias + network * layer.network_stride +", "return layer.bias +"),
            ("return layer.weight + network * layer.network_stride;", "return layer.weight;"),
            ("+ columns * layer.input_width", "+ columns"),
            ("return network * layer.source_stride +", "return"),
            ("(network * layer.capacity + row) * layer.output_width", "row * layer.output_width"),
            ("return order[layer.order + k];", "return order[k];"),
            ("return order[layer.order + k];", "return order[layer.order + layer.kept + k];"),
            ("activate(ACTIVATION, h.y)", "h.y"),
            ("rows[load] + input_column(k), k < layer.inputs", "rows[load] + input_column(k), true"),
            ("vec4<u32>(k), k < layer.inputs", "vec4<u32>(k), true"),
            ("inputs_at(rows[load]", "inputs_at(rows[0]"),
            ("weights_at(outs[load]", "weights_at(outs[0]"),
            ("if EVEN_B || item < ITEMS_B", "if item + 1u < ITEMS_B"),
            ("row < extent.rows && out < layer.outputs", "row < layer.capacity && out < layer.outputs"),
            ("row < extent.rows && out < layer.outputs", "row + 1u < extent.rows && out < layer.outputs"),
            ("min(TILE_DEPTH, layer.inputs - start)", "min(TILE_DEPTH, layer.inputs - start) - 1u"),
            (
                "first_out + tile_column(tx, 0u) < layer.outputs",
                "first_out + tile_column(tx, 0u) + 4u < layer.outputs",
            ),
            (
                "start < layer.inputs; start += TILE_DEPTH",
                "start + TILE_DEPTH < layer.inputs; start += TILE_DEPTH",
            ),
            ("sum = add_step(sum, tx, ty, k + 2u);", "sum = add_step(sum, tx, ty, k + 1u);"),
            ("tile_a[k * LINE_A + ty / 4u][ty % 4u]", "tile_a[k * LINE_A + ty / 4u][0]"),
            ("add_outer(sum.lower_right, lower, tile_b", "add_outer(sum.lower_right, upper, tile_b"),
            (
                "return 4u * half * HALF_A + ROWS_OF_HALF * ty + i;",
                "return half * HALF_A + ROWS_OF_HALF * ty + i;",
            ),
            ("return 4u * (half * HALF_B + tx);", "return 4u * (half + tx);"),
        ],
    }
}

/// The gradient at a network's input, added to what came by a skip connection.
fn input_gradient<R: Real>(setup: &Setup, network: usize) -> Vec<R> {
    let mut gradient = setup.backward_input::<R>(network);
    if setup.form.adds {
        let added = real::<R>(&setup.added[network]);
        gradient.iter_mut().zip(added).for_each(|(gradient, added)| *gradient += added);
    }
    pick(&gradient, &setup.used_inputs())
}

pub fn linear_backward() -> Case {
    let call = |(at, setup): (usize, Setup)| {
        let setup = setup.split([3, 1][at % 2]);
        let networks = setup.form.networks;
        let [inputs, _] = setup.used();
        let mut uniform = setup.uniform();
        uniform.input_groups = networks as u32 * setup.tile.across(inputs) * setup.tile.down(setup.capacity);
        let mut d_output = setup.results(&setup.d_output);
        // What is carried from coupling to coupling lies before the gradient of θ.
        d_output.splice(0..0, vec![POISON; uniform.d_output as usize]);
        let size = setup.capacity * setup.inputs;
        let mut destination = vec![POISON; networks * size];
        if setup.form.adds {
            for (plane, added) in destination.chunks_exact_mut(size).zip(&setup.added) {
                plane.copy_from_slice(&poisoned(&added[..setup.rows * setup.inputs], size));
            }
        }
        let mut call = setup
            .call(&uniform, grid((uniform.input_groups + setup.weight_groups()) as usize))
            .bind("d_output", d_output)
            .bind("destination", destination);
        for network in 0..networks {
            let places = setup.plane(network, setup.inputs, &setup.used_inputs());
            let truth = input_gradient::<f64>(&setup, network);
            call = call.expect("", places, truth, &input_gradient::<f32>(&setup, network));
        }
        setup.expect_partials(call)
    };
    Case {
        kernel: &LINEAR_BACKWARD,
        factor: 4.0,
        calls: setups([Place::Hidden, Place::Last]).enumerate().map(call).collect(),
        changes: &[
            ("values[j] * activation_slope(ACTIVATION, source[index]);", "values[j];"),
            ("destination[index] += gradient;", "destination[index] = gradient;"),
            (
                "if ACTIVATED == 1u {\n                            gradient",
                "if true {\n                            gradient",
            ),
            (
                "out / NETWORK_NUMBERS] * NETWORK_NUMBERS + out % NETWORK_NUMBERS",
                "out / NETWORK_NUMBERS] * NETWORK_NUMBERS",
            ),
            ("let network = group % NETWORKS;", "let network = 0u;"),
            ("return NETWORKS * tiles_x", "return tiles_x"),
            ("min(TILE_DEPTH, layer.outputs - start)", "min(TILE_DEPTH, layer.outputs - start) - 1u"),
            ("return layer.weight + network * layer.network_stride;", "return layer.weight;"),
            ("return first_weight(network) + output_column(out) *", "return first_weight(network) + out *"),
            (
                "row < end));\n            }\n        }\n        for",
                "true));\n            }\n        }\n        for",
            ),
            ("columns + input_row(network, row), row < end", "columns + input_row(network, row), true"),
            (
                "rows[load] + gradient_column(out), out < layer.outputs",
                "rows[load] + gradient_column(out), true",
            ),
            (
                "gradient_columns(first_out + 4u * (local % QUADS_A))",
                "gradient_columns(first_out + 4u * local)",
            ),
            ("vec4<u32>(out), k, out < layer.outputs", "vec4<u32>(out), k, true"),
            ("(network * layer.capacity + row) * layer.output_width", "row * layer.output_width"),
            ("return layer.d_output + output_row", "return output_row"),
            (
                "row < extent.rows && column + j < layer.inputs",
                "row < layer.capacity && column + j < layer.inputs",
            ),
            (
                "activation_slope(ACTIVATION, source[index])",
                "activation_slope(ACTIVATION, source[index - row])",
            ),
            ("case TANH: { return tanh_slope(x); }", "case TANH: { return tanh_slope(0.99 * x); }"),
            ("select(LEAKY_SLOPE, 1.0, x > 0.0)", "select(0.0, 1.0, x > 0.0)"),
            ("s * (1.0 + x * (1.0 - s))", "s * (1.0 - x * (1.0 - s))"),
            (
                "start < layer.outputs; start += TILE_DEPTH",
                "start + TILE_DEPTH < layer.outputs; start += TILE_DEPTH",
            ),
            ("order[layer.order + layer.kept + out /", "order[layer.order + out /"),
            ("partials[split * layer.parameters + bias_index(network, out)] =", "var none ="),
            ("bias += tile_a[k * LINE_A + ROWS_OF_HALF * ty / 4u];", "bias += tile_b[k * LINE_B];"),
            ("lower_bias += tile_a[k * LINE_A + HALF_A + ty];", "lower_bias += tile_a[k * LINE_A + ty];"),
            ("min(extent.rows, begin + layer.rows_per_split)", "begin + layer.rows_per_split"),
            ("min(extent.rows, begin + layer.rows_per_split)", "extent.rows"),
            ("let split = group / NETWORKS / tiles_x / tiles_y;", "let split = 0u;"),
            ("partials[split * layer.parameters + weight", "partials[split * layer.network_stride + weight"),
            (
                "start < layer.rows_per_split; start += TILE_DEPTH",
                "start + TILE_DEPTH < layer.rows_per_split; start += TILE_DEPTH",
            ),
            ("out < layer.outputs && column + j < layer.inputs", "out < layer.outputs"),
            ("return max", "return 0.5 * max"),
            ("weight_gradient(local, number - layer.input_groups);", "weight_gradient(local, number);"),
            ("number - layer.input_groups < weight_groups()", "number < weight_groups()"),
        ],
    }
}
