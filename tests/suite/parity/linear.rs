//! `shaders/layered/linear.wgsl` and `shaders/layered/linear_backward.wgsl` against `src/cpu/reference/linear.rs`.

use moonflow::flow::Activation;
use moonflow::gpu::kernel::{LINEAR_BACKWARD, LINEAR_FORWARD};
use moonflow::gpu::plan::grid;

use super::harness::{Case, POISON};
use super::layer::{Place, Setup, Size, TILES, pick};

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

/// Every size with every pipeline, at either of `places` by turns.
fn setups(places: [Place; 2]) -> impl Iterator<Item = Setup> {
    let setups = PIPELINES.into_iter().enumerate().flat_map(move |(turn, (activation, tile))| {
        SIZES.into_iter().enumerate().map(move |(at, size)| {
            Setup::new(size, places[turn % 2], activation, (at + turn) % 2, TILES[tile])
        })
    });
    setups.filter(|setup| setup.used().iter().all(|&used| used > 0))
}

pub fn linear_forward() -> Case {
    let call = |setup: Setup| {
        let outputs = setup.outputs;
        let mut call = setup
            .call(&setup.uniform(), setup.forward_groups(outputs, 2))
            .bind("destination", vec![POISON; 2 * setup.capacity * outputs]);
        for network in 0..2 {
            let places = setup.plane(network, outputs, &setup.used_outputs());
            call = call.expect("", places, setup.forward(network), &setup.forward(network));
        }
        call
    };
    Case {
        kernel: &LINEAR_FORWARD,
        factor: 4.0,
        calls: setups([Place::Hidden, Place::First]).map(call).collect(),
        changes: &[
            ("values[j] + parameters[bias_index(network, out)];", "values[j];"),
            ("return layer.bias + network * layer.network_stride +", "return layer.bias +"),
            ("return layer.weight + network * layer.network_stride +", "return layer.weight +"),
            (
                "output_column(out) * layer.input_width + input_column(k)",
                "input_column(k) * layer.output_width + output_column(out)",
            ),
            ("return network * layer.source_stride +", "return"),
            ("(network * layer.capacity + row) * layer.output_width", "row * layer.output_width"),
            ("return order[layer.order + k];", "return order[k];"),
            ("return order[layer.order + k];", "return order[layer.order + layer.kept + k];"),
            ("return activate(ACTIVATION, value);", "return value;"),
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

pub fn linear_backward() -> Case {
    let call = |(at, setup): (usize, Setup)| {
        let setup = setup.split([3, 1][at % 2]);
        let [inputs, _] = setup.used();
        let mut uniform = setup.uniform();
        uniform.input_groups = 2 * setup.tile.across(inputs) * setup.tile.down(setup.capacity);
        let mut d_output = setup.planes(&setup.d_output, setup.outputs, &setup.used_outputs());
        // What is carried from coupling to coupling lies before d_raw.
        d_output.splice(0..0, vec![POISON; uniform.d_output as usize]);
        let mut call = setup
            .call(&uniform, grid((uniform.input_groups + setup.weight_groups()) as usize))
            .bind("d_output", d_output)
            .bind("destination", vec![POISON; 2 * setup.capacity * setup.inputs]);
        for network in 0..2 {
            let used = setup.used_inputs();
            let places = setup.plane(network, setup.inputs, &used);
            let truth = pick(&setup.backward_input::<f64>(network), &used);
            call = call.expect("", places, truth, &pick(&setup.backward_input::<f32>(network), &used));
        }
        setup.expect_partials(call)
    };
    Case {
        kernel: &LINEAR_BACKWARD,
        factor: 4.0,
        calls: setups([Place::Hidden, Place::Last]).enumerate().map(call).collect(),
        changes: &[
            ("values[j] * activation_slope(ACTIVATION, source[index]);", "values[j];"),
            ("min(TILE_DEPTH, layer.outputs - start)", "min(TILE_DEPTH, layer.outputs - start) - 1u"),
            ("return layer.weight + network * layer.network_stride +", "return layer.weight +"),
            (
                "output_column(out) * layer.input_width + input_column(k)",
                "input_column(k) * layer.output_width + output_column(out)",
            ),
            ("(network * layer.capacity + row) * layer.output_width", "row * layer.output_width"),
            ("d_output[layer.d_output + output_index", "d_output[output_index"),
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
            ("return order[layer.order + layer.kept + out];", "return order[layer.order + out];"),
            ("partials[base + bias_index(network, out)] =", "var none ="),
            ("bias += tile_a[k * LINE_A + ROWS_OF_HALF * ty / 4u];", "bias += tile_b[k * LINE_B];"),
            ("lower_bias += tile_a[k * LINE_A + HALF_A + ty];", "lower_bias += tile_a[k * LINE_A + ty];"),
            ("min(extent.rows, begin + layer.rows_per_split)", "begin + layer.rows_per_split"),
            ("min(extent.rows, begin + layer.rows_per_split)", "extent.rows"),
            ("let split = group / 2u / tiles_x / tiles_y;", "let split = 0u;"),
            ("let base = split * layer.parameters;", "let base = split * layer.network_stride;"),
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
