//! `shaders/linear.wgsl` against `src/cpu/linear.rs`.

use std::ops::Range;

use moonflow::cpu::Real;
use moonflow::cpu::coupling::coupling_input;
use moonflow::cpu::linear::{
    activate, activate_backward, linear_backward_input as cpu_backward_input,
    linear_backward_weight as cpu_backward_weight, linear_forward as cpu_forward,
};
use moonflow::flow::Activation;
use moonflow::gpu::kernel::{LINEAR_BACKWARD_INPUT, LINEAR_BACKWARD_WEIGHT, LINEAR_FORWARD};
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, poisoned, random, real};

/// (rows, capacity, inputs, outputs): one, few, and every side of a tile of 64 and a depth of 16. Those that find
/// most mistakes soonest come first.
const SIZES: [(usize, usize, usize, usize); 9] = [
    (3, 5, 2, 3),
    (1, 1, 1, 1),
    (1, 3, 3, 2),
    (63, 64, 16, 17),
    (64, 64, 17, 16),
    (65, 70, 64, 65),
    (130, 130, 65, 64),
    (130, 133, 96, 40),
    (65, 128, 40, 96),
];

/// What a layer does with its source.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The first layer: keeps the features whose index has this parity, and both networks read the same rows.
    Masked(usize),
    /// Any other layer.
    Activated(Activation),
}

const MODES: [Mode; 6] = [
    Mode::Masked(0),
    Mode::Masked(1),
    Mode::Activated(Activation::Relu),
    Mode::Activated(Activation::Tanh),
    Mode::Activated(Activation::LeakyRelu),
    Mode::Activated(Activation::Silu),
];

/// A pair of layers amid other parameters, with data of which no two values are alike.
struct Setup {
    rows: usize,
    capacity: usize,
    inputs: usize,
    outputs: usize,
    mode: Mode,
    splits: usize,
    total: usize,
    /// By network.
    weight: [Vec<f32>; 2],
    bias: [Vec<f32>; 2],
    /// By network; the same twice where the source is masked.
    source: [Vec<f32>; 2],
    d_output: [Vec<f32>; 2],
}

impl Setup {
    fn new(
        (rows, capacity, inputs, outputs): (usize, usize, usize, usize),
        mode: Mode,
        splits: usize,
    ) -> Self {
        let seed = |what: u64, network: u64| 100 * what + 10 * network + (rows + inputs) as u64;
        let of = |what, count, limit| [0, 1].map(|network| random(count, limit, seed(what, network)));
        let weight = of(1, inputs * outputs, 1.0);
        let bias = of(2, outputs, 2.0);
        let mut source = of(3, rows * inputs, 3.0);
        if let Mode::Masked(_) = mode {
            source[1] = source[0].clone();
        }
        let d_output = of(4, rows * outputs, 1.0);
        let mut setup =
            Self { rows, capacity, inputs, outputs, mode, splits, total: 0, weight, bias, source, d_output };
        let uniform = setup.uniform();
        setup.total = (uniform.bias + uniform.network_stride) as usize + outputs + 2;
        setup
    }

    /// Every size with every mode, by turns with either number of splits.
    fn all(splits: [usize; 2]) -> impl Iterator<Item = Self> {
        let pairs = SIZES.into_iter().flat_map(|size| MODES.map(|mode| (size, mode)));
        pairs
            .enumerate()
            .map(move |(at, (size, mode))| Self::new(size, mode, splits[(at + at / MODES.len()) % 2]))
    }

    fn label(&self) -> String {
        let Self { rows, capacity, inputs, outputs, mode, splits, .. } = self;
        format!("{rows} of {capacity} rows, {inputs} → {outputs}, {mode:?}, {splits} splits:")
    }

    /// Offsets with gaps between, so that a wrong one hits poison.
    fn uniform(&self) -> uniforms::Linear {
        let (weight, matrix) = (5, self.inputs * self.outputs);
        let (masked, activation) = match self.mode {
            Mode::Masked(_) => (1, 0),
            Mode::Activated(activation) => (0, activation.code()),
        };
        uniforms::Linear {
            inputs: self.inputs as u32,
            outputs: self.outputs as u32,
            weight,
            bias: weight + matrix as u32 + 3,
            network_stride: (matrix + self.outputs + 11) as u32,
            source_stride: if masked == 1 { 0 } else { (self.capacity * self.inputs) as u32 },
            capacity: self.capacity as u32,
            activation,
            masked,
            mask: 2 * self.inputs as u32,
            rows_per_split: self.capacity.div_ceil(self.splits) as u32,
            parameters: self.total as u32,
        }
    }

    /// The places of a network's weight and bias among the parameters.
    fn spans(&self, network: usize) -> [Range<usize>; 2] {
        let uniform = self.uniform();
        let shift = network * uniform.network_stride as usize;
        let (weight, bias) = (uniform.weight as usize + shift, uniform.bias as usize + shift);
        [weight..weight + self.inputs * self.outputs, bias..bias + self.outputs]
    }

    fn parameters(&self) -> Vec<u32> {
        let mut parameters = vec![POISON; self.total];
        for network in 0..2 {
            for (span, values) in
                self.spans(network).into_iter().zip([&self.weight[network], &self.bias[network]])
            {
                parameters[span].copy_from_slice(&poisoned(values, values.len()));
            }
        }
        parameters
    }

    /// Masks of three couplings, of which this is the last.
    fn masks(&self) -> Vec<f32> {
        let mut masks = vec![7.0; 2 * self.inputs];
        masks.extend(self.mask().iter().map(|&kept| f32::from(u8::from(kept))));
        masks
    }

    fn mask(&self) -> Vec<bool> {
        let parity = if let Mode::Masked(parity) = self.mode { parity } else { 0 };
        (0..self.inputs).map(|column| column % 2 == parity).collect()
    }

    /// Two planes of `capacity` rows each, poisoned beyond the rows at hand.
    fn planes(&self, planes: &[Vec<f32>], width: usize) -> Vec<u32> {
        planes.iter().flat_map(|plane| poisoned(plane, self.capacity * width)).collect()
    }

    fn call(&self, workgroups: [usize; 3]) -> Call {
        let planes = if let Mode::Masked(_) = self.mode { 1 } else { 2 };
        let masks = self.masks();
        Call::new(self.label(), &self.uniform(), workgroups.map(|groups| groups as u32))
            .record("extent", &uniforms::Extent { rows: self.rows as u32, first: 9 })
            .bind("source", self.planes(&self.source[..planes], self.inputs))
            .values("masks", &masks, masks.len())
    }

    /// The layer's input h.
    fn input<R: Real>(&self, network: usize) -> Vec<R> {
        let source = real::<R>(&self.source[network]);
        let mut input = vec![R::nan(); source.len()];
        match self.mode {
            Mode::Masked(_) => coupling_input(&self.mask(), &source, &mut input),
            Mode::Activated(activation) => activate(activation, &source, &mut input),
        }
        input
    }

    fn forward<R: Real>(&self, network: usize) -> Vec<R> {
        let mut y = vec![R::nan(); self.rows * self.outputs];
        let (weight, bias) = (real::<R>(&self.weight[network]), real::<R>(&self.bias[network]));
        cpu_forward(self.rows, self.inputs, self.outputs, &self.input(network), &weight, &bias, &mut y);
        y
    }

    fn backward_input<R: Real>(&self, network: usize) -> Vec<R> {
        let (d_y, weight) = (real::<R>(&self.d_output[network]), real::<R>(&self.weight[network]));
        let mut d_h = vec![R::nan(); self.rows * self.inputs];
        cpu_backward_input(self.rows, self.inputs, self.outputs, &d_y, &weight, &mut d_h);
        match self.mode {
            Mode::Masked(_) => {
                for (d, kept) in d_h.iter_mut().zip(self.mask().into_iter().cycle()) {
                    *d = if kept { *d } else { R::zero() };
                }
                d_h
            }
            Mode::Activated(activation) => {
                let mut d_pre = vec![R::nan(); d_h.len()];
                activate_backward(activation, &real(&self.source[network]), &d_h, &mut d_pre);
                d_pre
            }
        }
    }

    /// One split's share of the gradients of weight and bias.
    fn backward_weight<R: Real>(&self, network: usize, split: usize) -> [Vec<R>; 2] {
        let per_split = self.capacity.div_ceil(self.splits);
        let (begin, end) = ((split * per_split).min(self.rows), ((split + 1) * per_split).min(self.rows));
        let (inputs, outputs) = (self.inputs, self.outputs);
        let h = &self.input::<R>(network)[begin * inputs..end * inputs];
        let d_y = &real::<R>(&self.d_output[network])[begin * outputs..end * outputs];
        let (mut d_weight, mut d_bias) = (vec![R::nan(); inputs * outputs], vec![R::nan(); outputs]);
        cpu_backward_weight(end - begin, inputs, outputs, h, d_y, &mut d_weight, &mut d_bias);
        [d_weight, d_bias]
    }

    /// Places of a network's plane of width `width`.
    fn plane(&self, network: usize, width: usize) -> Range<usize> {
        let first = network * self.capacity * width;
        first..first + self.rows * width
    }
}

pub fn linear_forward() -> Case {
    let call = |setup: Setup| {
        let outputs = setup.outputs;
        let mut call = setup
            .call([outputs.div_ceil(64), setup.capacity.div_ceil(64), 2])
            .bind("parameters", setup.parameters())
            .bind("destination", vec![POISON; 2 * setup.capacity * outputs]);
        for network in 0..2 {
            let places = setup.plane(network, outputs);
            call = call.expect("", places, setup.forward(network), &setup.forward(network));
        }
        call
    };
    Case {
        kernel: &LINEAR_FORWARD,
        factor: 4.0,
        calls: Setup::all([1, 1]).map(call).collect(),
        changes: &[
            ("values[j] + bias;", "values[j];"),
            ("linear.bias + network * linear.network_stride + out];", "linear.bias + out];"),
            ("return linear.weight + network * linear.network_stride +", "return linear.weight +"),
            ("out * linear.inputs + column;", "column * linear.outputs + out;"),
            ("return network * linear.source_stride +", "return"),
            (
                "(network * linear.capacity + row) * linear.outputs",
                "(network * extent.rows + row) * linear.outputs",
            ),
            ("return value * masks[linear.mask + column];", "return value * masks[column];"),
            ("return value * masks[linear.mask + column];", "return value;"),
            ("return activate(linear.activation, value);", "return value;"),
            ("row < extent.rows && out < linear.outputs", "row < linear.capacity && out < linear.outputs"),
            ("row < extent.rows && out < linear.outputs", "row + 1u < extent.rows && out < linear.outputs"),
            ("min(DEPTH, linear.inputs - start)", "min(DEPTH, linear.inputs - start) - 1u"),
            (
                "if first_out + 4u * depth < linear.outputs {",
                "if first_out + 4u * depth + 4u < linear.outputs {",
            ),
            ("start < linear.inputs; start += DEPTH", "start + DEPTH < linear.inputs; start += DEPTH"),
            ("let row = first_row + 4u * quad + i;", "let row = first_row + 4u * quad + 3u - i;"),
        ],
    }
}

pub fn linear_backward_input() -> Case {
    let call = |setup: Setup| {
        let inputs = setup.inputs;
        let mut call = setup
            .call([inputs.div_ceil(64), setup.capacity.div_ceil(64), 2])
            .bind("parameters", setup.parameters())
            .bind("d_output", setup.planes(&setup.d_output, setup.outputs))
            .bind("destination", vec![POISON; 2 * setup.capacity * inputs]);
        for network in 0..2 {
            let places = setup.plane(network, inputs);
            call = call.expect("", places, setup.backward_input(network), &setup.backward_input(network));
        }
        call
    };
    Case {
        kernel: &LINEAR_BACKWARD_INPUT,
        factor: 4.0,
        calls: Setup::all([1, 1]).map(call).collect(),
        changes: &[
            ("values[j] * slope;", "values[j];"),
            ("slope = masks[linear.mask + column];", "slope = 1.0 - masks[linear.mask + column];"),
            ("min(DEPTH, linear.outputs - start)", "min(DEPTH, linear.outputs - start) - 1u"),
            ("return linear.weight + network * linear.network_stride +", "return linear.weight +"),
            ("out * linear.inputs + column;", "column * linear.outputs + out;"),
            (
                "(network * linear.capacity + row) * linear.inputs",
                "(network * extent.rows + row) * linear.inputs",
            ),
            ("(network * linear.capacity + row) * linear.outputs", "row * linear.outputs"),
            (
                "row < extent.rows && column < linear.inputs",
                "row < linear.capacity && column < linear.inputs",
            ),
            ("source[source_index(network, row, column)]);", "source[source_index(0u, row, column)]);"),
            ("case TANH: { return tanh_slope(x); }", "case TANH: { return tanh_slope(0.99 * x); }"),
            ("select(LEAKY_SLOPE, 1.0, x > 0.0)", "select(0.0, 1.0, x > 0.0)"),
            ("s * (1.0 + x * (1.0 - s))", "s * (1.0 - x * (1.0 - s))"),
            ("start < linear.outputs; start += DEPTH", "start + DEPTH < linear.outputs; start += DEPTH"),
        ],
    }
}

pub fn linear_backward_weight() -> Case {
    let call = |setup: Setup| {
        let groups = [setup.inputs.div_ceil(64), setup.outputs.div_ceil(64), 2 * setup.splits];
        let mut call = setup
            .call(groups)
            .bind("d_output", setup.planes(&setup.d_output, setup.outputs))
            .bind("destination", vec![POISON; setup.splits * setup.total]);
        for split in 0..setup.splits {
            for network in 0..2 {
                let truth = setup.backward_weight::<f64>(network, split);
                let single = setup.backward_weight::<f32>(network, split);
                for (((truth, single), span), name) in
                    truth.into_iter().zip(single).zip(setup.spans(network)).zip(["weight", "bias"])
                {
                    let places = span.map(|place| split * setup.total + place);
                    call = call.expect(&format!("{name} of split {split}"), places, truth, &single);
                }
            }
        }
        call
    };
    Case {
        kernel: &LINEAR_BACKWARD_WEIGHT,
        factor: 4.0,
        calls: Setup::all([3, 1]).map(call).collect(),
        changes: &[
            ("destination[base + linear.bias + network * linear.network_stride + out] = bias[i];", ""),
            ("bias += tile_a[k * LINE + ty];", "bias += tile_b[k * LINE + ty];"),
            ("min(extent.rows, begin + linear.rows_per_split)", "begin + linear.rows_per_split"),
            ("min(extent.rows, begin + linear.rows_per_split)", "extent.rows"),
            ("let split = group.z / 2u;", "let split = 0u;"),
            ("let base = split * linear.parameters;", "let base = split * linear.network_stride;"),
            (
                "start < linear.rows_per_split; start += DEPTH",
                "start + DEPTH < linear.rows_per_split; start += DEPTH",
            ),
            ("(network * linear.capacity + row) * linear.outputs", "row * linear.outputs"),
            ("out < linear.outputs && column < linear.inputs", "out < linear.outputs"),
            ("return max", "return 0.5 * max"),
        ],
    }
}
