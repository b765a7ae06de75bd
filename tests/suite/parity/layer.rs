//! A linear layer of one network or two with everything that its kernels bind: sizes, data of which no two values are
//! alike, and what the CPU makes of them in either precision.

use std::ops::Range;

use moonflow::cpu::Real;
use moonflow::cpu::activation::{activate, activate_backward};
use moonflow::cpu::reference::coupling::coupling_backward;
use moonflow::cpu::reference::linear::{linear_backward_input, linear_backward_weight, linear_forward};
use moonflow::flow::Activation;
use moonflow::gpu::kernel::Constant;
use moonflow::gpu::plan::lanes;
use moonflow::gpu::tile::Tile;
use moonflow::gpu::uniforms;

use super::harness::{Call, POISON, poisoned, random, real};

/// Every shape of a thread's block, and tiles that are wide, high, thin and deep.
pub const TILES: [Tile; 7] = [
    tile([64, 64, 16], [4, 4]),
    tile([64, 4, 4], [1, 4]),
    tile([32, 16, 8], [1, 4]),
    tile([128, 64, 16], [8, 4]),
    tile([64, 128, 8], [4, 8]),
    tile([128, 128, 8], [8, 8]),
    tile([32, 32, 16], [4, 4]),
];

const fn tile([rows, columns, depth]: [u32; 3], [block_rows, block_columns]: [u32; 2]) -> Tile {
    Tile { rows, columns, depth, block_rows, block_columns }
}

/// Where a layer stands in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its inputs are features, of which it reads those that are kept.
    First,
    /// Neither first nor last.
    Hidden,
    /// Its outputs are features, of which it yields those that are transformed.
    Last,
}

/// Widths and rows of a layer: (rows, capacity, inputs, outputs), inputs and outputs as wide as in memory; of a last
/// layer, outputs are features.
pub type Size = (usize, usize, usize, usize);

/// How a layer is a part of its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub networks: usize,
    pub place: Place,
    /// Numbers of θ for each feature, of a last layer.
    pub numbers: usize,
    /// Whether its input passes through the activation.
    pub activated: bool,
    /// Whether a skip connection adds to its result, or backward to the gradient at its input.
    pub adds: bool,
}

impl Form {
    /// Of two networks, one for each number of θ.
    pub const fn separate(place: Place) -> Self {
        Self { networks: 2, place, numbers: 1, activated: !matches!(place, Place::First), adds: false }
    }

    /// Of one network that yields so many numbers of θ.
    pub const fn joint(place: Place, numbers: usize) -> Self {
        Self { networks: 1, numbers, ..Self::separate(place) }
    }
}

/// A layer amid other parameters.
pub struct Setup {
    pub rows: usize,
    pub capacity: usize,
    /// As wide as in memory: of all features at the ends of a network.
    pub inputs: usize,
    pub outputs: usize,
    pub form: Form,
    pub activation: Activation,
    pub tile: Tile,
    pub splits: usize,
    /// Which features the coupling keeps.
    pub mask: Vec<bool>,
    pub total: usize,
    /// By network; zero, and poison on the device, where masked.
    pub weight: [Vec<f32>; 2],
    pub bias: [Vec<f32>; 2],
    /// By network; the same twice in the first layer.
    pub source: [Vec<f32>; 2],
    pub d_output: [Vec<f32>; 2],
    /// What a skip connection adds, to the result or to the gradient at the input.
    pub added: [Vec<f32>; 2],
}

impl Setup {
    /// A layer of `form`; of its features, if it has any, those of the index parity `parity` are kept.
    pub fn new(
        (rows, capacity, inputs, outputs): Size,
        form: Form,
        activation: Activation,
        parity: usize,
        tile: Tile,
    ) -> Self {
        let last = form.place == Place::Last;
        let features = if last { outputs } else { inputs };
        let outputs = if last { outputs * form.numbers } else { outputs };
        let mask: Vec<bool> = (0..features).map(|feature| feature % 2 == parity).collect();
        let seed = |what: u64, network: u64| 100 * what + 10 * network + (rows + inputs) as u64;
        let of = |what, count, limit| [0, 1].map(|network| random(count, limit, seed(what, network)));
        let mut setup = Self {
            rows,
            capacity,
            inputs,
            outputs,
            form,
            activation,
            tile,
            splits: 1,
            mask,
            total: 0,
            weight: of(1, inputs * outputs, 1.0),
            bias: of(2, outputs, 2.0),
            source: of(3, rows * inputs, 3.0),
            d_output: of(4, rows * outputs, 1.0),
            added: of(5, rows * inputs.max(outputs), 2.0),
        };
        if form.place == Place::First {
            setup.source[1] = setup.source[0].clone();
        }
        let [used_inputs, used_outputs] = [setup.used_inputs(), setup.used_outputs()];
        for network in 0..2 {
            let weight = &mut setup.weight[network];
            for at in (0..weight.len()).filter(|at| !(used_inputs[at % inputs] && used_outputs[at / inputs]))
            {
                weight[at] = 0.0;
            }
            for at in (0..outputs).filter(|&out| !used_outputs[out]) {
                setup.bias[network][at] = 0.0;
            }
            for at in (0..rows * outputs).filter(|at| !used_outputs[at % outputs]) {
                setup.d_output[network][at] = 0.0;
            }
        }
        let uniform = setup.uniform();
        setup.total = (uniform.bias + uniform.network_stride) as usize + outputs + 2;
        setup
    }

    /// Sets the number of splits of the weight gradient, of which none is empty.
    pub fn split(mut self, splits: usize) -> Self {
        self.splits = self.capacity.div_ceil(self.capacity.div_ceil(splits));
        self
    }

    pub fn label(&self) -> String {
        let Self { rows, capacity, inputs, outputs, form, activation, splits, tile, .. } = self;
        format!(
            "{rows}/{capacity} rows, {inputs}→{outputs}, {form:?}, {activation:?}, {splits} splits, {tile}:"
        )
    }

    /// Which inputs feed the layer.
    pub fn used_inputs(&self) -> Vec<bool> {
        if self.form.place == Place::First { self.mask.clone() } else { vec![true; self.inputs] }
    }

    /// Which outputs leave it.
    pub fn used_outputs(&self) -> Vec<bool> {
        if self.form.place == Place::Last {
            self.mask.iter().flat_map(|kept| vec![!kept; self.form.numbers]).collect()
        } else {
            vec![true; self.outputs]
        }
    }

    pub fn features(&self) -> usize {
        self.mask.len()
    }

    pub fn kept(&self) -> usize {
        self.mask.iter().filter(|kept| **kept).count()
    }

    /// Inputs and outputs in use.
    pub fn used(&self) -> [usize; 2] {
        [self.used_inputs(), self.used_outputs()].map(|used| used.iter().filter(|used| **used).count())
    }

    /// Offsets with gaps between, so that a wrong one hits poison. The coupling is the last of three.
    pub fn uniform(&self) -> uniforms::Layer {
        let (weight, matrix) = (5, self.inputs * self.outputs);
        let [inputs, outputs] = self.used();
        let features = self.features();
        uniforms::Layer {
            inputs: inputs as u32,
            outputs: outputs as u32,
            input_width: self.inputs as u32,
            output_width: self.outputs as u32,
            weight,
            bias: weight + matrix as u32 + 3,
            network_stride: (matrix + self.outputs + 11) as u32,
            parameters: self.total as u32,
            source_stride: if self.form.place == Place::First {
                0
            } else {
                (self.capacity * self.inputs) as u32
            },
            d_output: if self.form == Form::separate(Place::Last) {
                (self.capacity * features) as u32
            } else {
                0
            },
            capacity: self.capacity as u32,
            features: features as u32,
            order: 4 * features as u32,
            kept: self.kept() as u32,
            through_bound: 0.0,
            through: 0,
            rows_per_split: self.rows_per_split() as u32,
            input_groups: 0,
            begins: 0,
            bound: 0.0,
            lanes: lanes(features),
            modelled: features as u32,
            factors: 0,
            components: 0,
        }
    }

    pub fn constants(&self) -> Vec<Constant> {
        let mut constants = vec![
            ("NETWORKS", self.form.networks as u32),
            ("FIRST", u32::from(self.form.place == Place::First)),
            ("LAST", u32::from(self.form.place == Place::Last)),
            ("NETWORK_NUMBERS", self.form.numbers as u32),
            ("ACTIVATION", self.activation.code()),
            ("ACTIVATED", u32::from(self.form.activated)),
            ("ADDS", u32::from(self.form.adds)),
        ];
        constants.extend(self.tile.constants());
        constants
    }

    /// A dispatch with the buffers that every kernel of a layer has.
    pub fn call(&self, uniform: &uniforms::Layer, workgroups: [u32; 3]) -> Call {
        let planes = if self.form.place == Place::First { 1 } else { self.form.networks };
        Call::new(self.label(), uniform, workgroups)
            .constants(&self.constants())
            .record("extent", &uniforms::Extent { rows: self.rows as u32, first: 9 })
            .bind("parameters", self.parameters())
            .bind("source", self.planes(&self.source[..planes], self.inputs, &self.used_inputs()))
            .bind("order", order(&[&self.mask]))
    }

    pub fn rows_per_split(&self) -> usize {
        self.capacity.div_ceil(self.splits)
    }

    /// Workgroups of a forward product.
    pub fn forward_groups(&self, columns: usize, networks: usize) -> [u32; 3] {
        [self.tile.across(columns), self.tile.down(self.capacity), networks as u32]
    }

    /// Workgroups that make the weight gradient.
    pub fn weight_groups(&self) -> u32 {
        let [inputs, outputs] = self.used();
        self.form.networks as u32 * self.tile.across(inputs) * self.tile.down(outputs) * self.splits as u32
    }

    /// The places of a network's weight and bias among the parameters.
    pub fn spans(&self, network: usize) -> [Range<usize>; 2] {
        let uniform = self.uniform();
        let shift = network * uniform.network_stride as usize;
        let (weight, bias) = (uniform.weight as usize + shift, uniform.bias as usize + shift);
        [weight..weight + self.inputs * self.outputs, bias..bias + self.outputs]
    }

    /// Whether each entry of the weight and of the bias is in use.
    fn used_parameters(&self) -> [Vec<bool>; 2] {
        let (inputs, outputs) = (self.used_inputs(), self.used_outputs());
        let entry = |at: usize| inputs[at % self.inputs] && outputs[at / self.inputs];
        [(0..self.inputs * self.outputs).map(entry).collect(), outputs.clone()]
    }

    fn parameters(&self) -> Vec<u32> {
        let mut parameters = vec![POISON; self.total];
        for network in 0..self.form.networks {
            let tensors = [&self.weight[network], &self.bias[network]];
            for ((span, values), used) in
                self.spans(network).into_iter().zip(tensors).zip(self.used_parameters())
            {
                for ((place, value), _) in span.zip(values).zip(used).filter(|(_, used)| *used) {
                    parameters[place] = value.to_bits();
                }
            }
        }
        parameters
    }

    /// Planes of `capacity` rows each, poisoned beyond the rows that hold data and in columns that are not used.
    pub fn planes(&self, planes: &[Vec<f32>], width: usize, used: &[bool]) -> Vec<u32> {
        let plane = |plane: &Vec<f32>| {
            let mut words = poisoned(plane, self.capacity * width);
            for (at, word) in words.iter_mut().enumerate().filter(|(at, _)| !used[at % width]) {
                debug_assert!(at < self.capacity * width);
                *word = POISON;
            }
            words
        };
        planes.iter().flat_map(plane).collect()
    }

    /// Places of a network's plane of width `width` whose column is in use.
    pub fn plane(&self, network: usize, width: usize, used: &[bool]) -> Vec<usize> {
        let first = network * self.capacity * width;
        (0..self.rows * width).filter(|at| used[at % width]).map(|at| first + at).collect()
    }

    /// Places of a network's results that leave the layer: θ of one network lies side by side, else the buffer is a plane
    /// for each network.
    pub fn outputs_at(&self, network: usize) -> Vec<usize> {
        if self.form.networks > 1 {
            return self.plane(network, self.outputs, &self.used_outputs());
        }
        (0..self.rows * self.used()[1]).collect()
    }

    /// A buffer of results, with those of `values` [networks][rows, outputs] that leave the layer.
    pub fn results(&self, values: &[Vec<f32>; 2]) -> Vec<u32> {
        let width = if self.form.networks > 1 { self.outputs } else { self.used()[1] };
        let mut words = vec![POISON; self.form.networks * self.capacity * width];
        for network in 0..self.form.networks {
            let values = pick(&values[network], &self.used_outputs());
            for (place, value) in self.outputs_at(network).into_iter().zip(values) {
                words[place] = value.to_bits();
            }
        }
        words
    }

    /// The layer's input h.
    fn input<R: Real>(&self, network: usize) -> Vec<R> {
        let source = real::<R>(&self.source[network]);
        let mut input = vec![R::zero(); source.len()];
        if self.form.activated {
            activate(self.activation, &source, &mut input);
            return input;
        }
        let used = self.used_inputs();
        for (at, value) in source.into_iter().enumerate().filter(|(at, _)| used[at % self.inputs]) {
            input[at] = value;
        }
        input
    }

    pub fn forward<R: Real>(&self, network: usize) -> Vec<R> {
        let mut y = vec![R::nan(); self.rows * self.outputs];
        let (weight, bias) = (real::<R>(&self.weight[network]), real::<R>(&self.bias[network]));
        linear_forward(self.rows, self.inputs, self.outputs, &self.input(network), &weight, &bias, &mut y);
        y
    }

    /// The gradient at the layer's input; before its activation, if it has one.
    pub fn backward_input<R: Real>(&self, network: usize) -> Vec<R> {
        let (d_y, weight) = (real::<R>(&self.d_output[network]), real::<R>(&self.weight[network]));
        let mut d_h = vec![R::nan(); self.rows * self.inputs];
        linear_backward_input(self.rows, self.inputs, self.outputs, &d_y, &weight, &mut d_h);
        if !self.form.activated {
            return d_h;
        }
        let mut d_pre = vec![R::nan(); d_h.len()];
        activate_backward(self.activation, &real(&self.source[network]), &d_h, &mut d_pre);
        d_pre
    }

    /// One split's share of the gradients of weight and bias.
    fn backward_weight<R: Real>(&self, network: usize, split: usize) -> [Vec<R>; 2] {
        let per_split = self.rows_per_split();
        let (begin, end) = ((split * per_split).min(self.rows), ((split + 1) * per_split).min(self.rows));
        let (inputs, outputs) = (self.inputs, self.outputs);
        let h = &self.input::<R>(network)[begin * inputs..end * inputs];
        let d_y = &real::<R>(&self.d_output[network])[begin * outputs..end * outputs];
        let (mut d_weight, mut d_bias) = (vec![R::nan(); inputs * outputs], vec![R::nan(); outputs]);
        linear_backward_weight(end - begin, inputs, outputs, h, d_y, &mut d_weight, &mut d_bias);
        [d_weight, d_bias]
    }

    /// Binds and expects the partial gradients. Masked entries are to stay as they are.
    pub fn expect_partials(&self, call: Call) -> Call {
        let mut call = call.bind("partials", vec![POISON; self.splits * self.total]);
        for split in 0..self.splits {
            for network in 0..self.form.networks {
                let truth = self.backward_weight::<f64>(network, split);
                let single = self.backward_weight::<f32>(network, split);
                let tensors = truth.into_iter().zip(single).zip(self.spans(network));
                for ((tensor, used), name) in tensors.zip(self.used_parameters()).zip(["weight", "bias"]) {
                    let ((truth, single), span) = tensor;
                    let places = span.map(|place| split * self.total + place);
                    call = call.expect(
                        &format!("{name} of split {split}"),
                        pick(&places.collect::<Vec<_>>(), &used),
                        pick(&truth, &used),
                        &pick(&single, &used),
                    );
                }
            }
        }
        call
    }
}

/// Those of `values` that are in use, which repeats.
pub fn pick<T: Copy>(values: &[T], used: &[bool]) -> Vec<T> {
    values.iter().zip(used.iter().cycle()).filter(|(_, used)| **used).map(|(value, _)| *value).collect()
}

/// The order of features of three couplings, of which the last ones have these masks and the others their opposites.
pub fn order(masks: &[&[bool]]) -> Vec<u32> {
    let opposite: Vec<bool> = masks[0].iter().map(|kept| !kept).collect();
    let others = (masks.len()..3).map(|_| &opposite[..]);
    let mut order = Vec::new();
    for mask in others.chain(masks.iter().copied()) {
        for wanted in [true, false] {
            order.extend((0..mask.len() as u32).filter(|&feature| mask[feature as usize] == wanted));
        }
        order.extend(mask.iter().map(|&kept| u32::from(kept)));
    }
    order
}

/// What a backward kernel differentiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    Mean,
    Weighted,
    Score,
}

impl Factor {
    pub fn constant(self) -> Constant {
        ("FACTOR", self as u32)
    }

    /// Factors of weighted rows, of which the second one does not count.
    fn weights(rows: usize) -> Vec<f32> {
        let mut weights: Vec<f32> = random(rows, 0.5, 91).iter().map(|value| value + 0.6).collect();
        if let Some(weight) = weights.get_mut(1) {
            *weight = 0.0;
        }
        weights
    }

    /// The factor of each row.
    pub fn of<R: Real>(self, rows: usize) -> Vec<R> {
        match self {
            Self::Mean => vec![R::from_wide(1.0 / rows as f64); rows],
            Self::Weighted => real(&Self::weights(rows)),
            Self::Score => vec![-R::one(); rows],
        }
    }

    /// What d_coupling holds behind its planes.
    pub fn tail(self, rows: usize, capacity: usize) -> Vec<u32> {
        if self == Self::Weighted { poisoned(&Self::weights(rows), capacity) } else { Vec::new() }
    }
}

/// The affine coupling that a backward kernel passes its gradient through.
pub struct Before {
    pub factor: Factor,
    /// Which features it keeps.
    pub mask: Vec<bool>,
    pub bound: f32,
    /// Its result z and its raw log-scales [rows, D].
    pub z: Vec<f32>,
    pub raw: Vec<f32>,
}

impl Before {
    /// One that keeps every second of `modelled` features, and the others.
    pub fn new(rows: usize, features: usize, modelled: usize, seed: u64) -> Self {
        Self {
            factor: Factor::Mean,
            mask: (0..features).map(|feature| feature % 2 == 0 || feature >= modelled).collect(),
            bound: 1.5,
            z: random(rows * features, 3.0, 1000 + seed),
            raw: random(rows * features, 3.0, 2000 + seed),
        }
    }

    /// What a kernel of the transform after it is told.
    pub fn uniform(&self, capacity: usize) -> uniforms::Layer {
        let features = self.mask.len();
        uniforms::Layer {
            through: 4 * features as u32,
            through_bound: self.bound,
            factors: (3 * capacity * features) as u32,
            ..Default::default()
        }
    }

    /// The gradient at its input, then those of o and t.
    fn backward<R: Real>(&self, d_z: &[R]) -> [Vec<R>; 3] {
        let nan = || vec![R::nan(); d_z.len()];
        let [mut d_o, mut d_t, mut d_x] = [nan(), nan(), nan()];
        coupling_backward(
            R::from_wide(self.bound.into()),
            &self.factor.of(d_z.len() / self.mask.len()),
            &self.mask,
            d_z,
            &real(&self.z),
            &real(&self.raw),
            &mut d_o,
            &mut d_t,
            &mut d_x,
        );
        [d_x, d_o, d_t]
    }

    /// Binds d_coupling, which holds `held` before, and expects in it what becomes of d_z at the first `modelled` features,
    /// with this coupling before or without one.
    pub fn expect(
        &self,
        call: Call,
        passes: bool,
        (capacity, modelled): (usize, usize),
        held: Vec<u32>,
        (truth, single): (&[f64], &[f32]),
    ) -> Call {
        let features = self.mask.len();
        let (size, rows) = (capacity * features, truth.len() / features);
        let first: Vec<bool> = (0..features).map(|feature| feature < modelled).collect();
        let transformed: Vec<bool> = self.mask.iter().map(|kept| !kept).collect();
        let mut planes = vec![POISON; 3 * size];
        planes[..size].copy_from_slice(&held);
        planes.extend(self.factor.tail(rows, capacity));
        let mut call = call.bind("d_coupling", planes);
        let (truth, single): (Vec<Vec<f64>>, Vec<Vec<f32>>) = if passes {
            (self.backward(truth).into(), self.backward(single).into())
        } else {
            (vec![truth.to_vec()], vec![single.to_vec()])
        };
        for (plane, (truth, single)) in truth.iter().zip(&single).enumerate() {
            let used = if plane == 0 { &first } else { &transformed };
            let places = (0..rows * features).filter(|at| used[at % features]).map(|at| plane * size + at);
            let name = ["", "o", "t"][plane];
            call = call.expect(name, places, pick(truth, used), &pick(single, used));
        }
        call
    }
}
