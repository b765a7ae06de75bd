//! A flow as the fused kernels read it: a table of transforms, and the parameters of each, padded to whole quads.
//! Mirrors `shaders/fused/layout.wgsl`; training keeps the packed copies up to date on the device.

use super::super::plan::{Copies, NOWHERE};
use super::super::uniforms::{self, FusedTransform, MOST_SPANS, MOST_TRANSFORMS, Span};
use crate::flow::{Base, Coupling, Flow, NetworkShape, Transform};
use crate::layout::{Block, Layout, LinearSpan, NetworkSpan};

/// Kinds of transforms, as the shaders number them.
const COUPLING: u32 = 0;
const ACTNORM: u32 = 1;
const LU: u32 = 2;
const PERMUTATION: u32 = 3;

/// The role of a feature that a coupling keeps, and of what is no feature.
const KEPT: u32 = u32::MAX;

/// Where everything lies in the packed parameters. All offsets count quads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusedLayout {
    transforms: Vec<FusedTransform>,
    spans: Vec<Span>,
    /// What each feature is to each transform [L, quads, 4]: kept, or its place among the transformed features. A
    /// permutation has two such rows: from which feature each comes, and to which it goes.
    roles: Vec<u32>,
    /// Places of both packed copies of each parameter, which are one where there is a single copy; and its place in a
    /// slot. In values, not quads; or [`NOWHERE`].
    places: Vec<[u32; 2]>,
    slot_places: Vec<u32>,
    /// Where the base density begins among the packed parameters and in a slot, in quads.
    base: usize,
    base_slot: usize,
    /// Quads of the packed parameters, of a slot, and of what is saved of a row.
    packed: usize,
    slot: usize,
    saved: usize,
}

fn quads(width: usize) -> usize {
    width.div_ceil(4)
}

/// Quads of a row of what each network of `coupling` gives out, as its kernels lay them out.
pub(super) fn output_quads(flow: &Flow, coupling: &Coupling) -> usize {
    match coupling.networks(flow.features).len() {
        1 => coupling.split().1.len() * quads(coupling.bijector.parameters()),
        _ => quads(flow.features),
    }
}

/// What each feature is to a transform, padded to whole quads.
fn roles(flow: &Flow, transform: &Transform) -> Vec<u32> {
    let width = 4 * quads(flow.features);
    match transform {
        Transform::Coupling(coupling) => {
            let mut roles = vec![KEPT; width];
            for (place, &feature) in coupling.split().1.iter().enumerate() {
                roles[feature] = place as u32;
            }
            roles
        }
        Transform::Permutation { permutation } => {
            let mut roles: Vec<u32> = (0..width as u32).chain(0..width as u32).collect();
            for (to, &from) in permutation.iter().enumerate() {
                roles[to] = from as u32;
                roles[width + from] = to as u32;
            }
            roles
        }
        Transform::Actnorm | Transform::Lu => vec![KEPT; width],
    }
}

impl FusedLayout {
    /// The fused layout of a flow with this `layout`.
    pub fn new(flow: &Flow, layout: &Layout) -> Self {
        let mut fused_layout = Self::default();
        for (transform, block) in flow.transforms.iter().zip(&layout.blocks) {
            fused_layout.add(flow, transform, block);
        }
        fused_layout.add_base(flow);
        fused_layout
    }

    /// Whether the kernels' tables have room for `flow`, and all its couplings have one kind of bijector.
    pub fn holds(flow: &Flow) -> bool {
        let layers = |network: NetworkShape| -> Vec<[usize; 2]> {
            network.layers.iter().map(|layer| [layer.inputs, layer.outputs]).collect()
        };
        let shape = |transform: &Transform| match transform {
            // A single network is packed by how many features it serves.
            Transform::Coupling(coupling) => {
                let networks = coupling.networks(flow.features);
                networks.into_iter().next().map(|network| (layers(network), output_quads(flow, coupling)))
            }
            Transform::Lu => Some((vec![[flow.features; 2]; 2], quads(flow.features))),
            Transform::Actnorm | Transform::Permutation { .. } => None,
        };
        let mut shapes: Vec<_> = flow.transforms.iter().filter_map(shape).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let mut kinds = flow.couplings().map(|coupling| coupling.bijector.constants());
        let first = kinds.next();
        flow.transforms.len() <= MOST_TRANSFORMS
            && shapes.iter().map(|(layers, _)| layers.len()).sum::<usize>() <= MOST_SPANS
            && kinds.all(|kind| Some(&kind) == first.as_ref())
    }

    fn add(&mut self, flow: &Flow, transform: &Transform, block: &Block) {
        let roles = roles(flow, transform);
        let mut entry = FusedTransform {
            roles: quads(self.roles.len()) as u32,
            weights: self.packed as u32,
            slot: self.slot as u32,
            saved: self.saved as u32,
            ..FusedTransform::default()
        };
        // Its input.
        self.saved += quads(flow.features);
        match transform {
            Transform::Coupling(coupling) => {
                entry.kind = COUPLING;
                entry.bound = coupling.bijector.bound();
                entry.transformed = coupling.split().1.len() as u32;
                self.saved += match block.networks.len() {
                    1 => entry.transformed as usize * quads(coupling.bijector.saved()),
                    _ => coupling.bijector.saved() * quads(flow.features),
                };
                self.add_networks(&mut entry, block, &roles, output_quads(flow, coupling));
            }
            Transform::Lu => {
                entry.kind = LU;
                self.add_lu(&mut entry, flow);
            }
            Transform::Permutation { .. } => entry.kind = PERMUTATION,
            Transform::Actnorm => {
                entry.kind = ACTNORM;
                for _ in 0..2 {
                    self.place_vector(flow.modelled(), quads(flow.features));
                }
            }
        }
        self.roles.extend(roles);
        self.transforms.push(entry);
    }

    /// Networks of one shape, one after the other.
    fn add_networks(
        &mut self,
        entry: &mut FusedTransform,
        block: &Block,
        roles: &[u32],
        output_quads: usize,
    ) {
        let whole = self.add_spans(entry, spans(&block.networks[0].layers, output_quads));
        entry.networks = block.networks.len() as u32;
        for network in &block.networks {
            let numbers = network.numbers;
            // The column of an output of the last layer, where it has one.
            let column = |out: usize| match block.networks.len() {
                1 => (roles[out / numbers] != KEPT)
                    .then(|| 4 * quads(numbers) * roles[out / numbers] as usize + out % numbers),
                _ => Some(out),
            };
            for (layer, linear) in network.layers.iter().enumerate() {
                let span = self.spans[entry.spans as usize + layer];
                let column = |out| if layer + 1 == network.layers.len() { column(out) } else { Some(out) };
                for out in (0..linear.outputs).map(column) {
                    (0..linear.inputs).for_each(|input| self.put(out.map(|out| weight(&span, out, input))));
                }
                for out in (0..linear.outputs).map(column) {
                    self.put(out.map(|out| bias(&span, out)));
                }
            }
            self.packed += whole;
            self.slot += entry.slot_stride as usize;
        }
    }

    /// An LU layer, as a network with a layer for each triangle; the logarithms of U's diagonal take the place of the
    /// first one's bias.
    fn add_lu(&mut self, entry: &mut FusedTransform, flow: &Flow) {
        let width = quads(flow.features) as u32;
        let square = Span { input_quads: width, output_quads: width, ..Span::default() };
        let whole = self.add_spans(entry, vec![square; 2]);
        entry.networks = 1;
        let [upper, lower] = [0, 1].map(|layer| self.spans[entry.spans as usize + layer]);
        let pairs = || (0..flow.modelled()).flat_map(|i| (0..flow.modelled()).map(move |j| (i, j)));
        pairs().for_each(|(i, j)| self.put((i > j).then(|| weight(&lower, i, j))));
        pairs().for_each(|(i, j)| self.put((i < j).then(|| weight(&upper, i, j))));
        for span in [upper, lower] {
            (0..flow.modelled()).for_each(|j| self.put(Some(bias(&span, j))));
        }
        self.packed += whole;
        self.slot += entry.slot_stride as usize;
    }

    /// The base density, as `shaders/fused/base/mixture.wgsl` reads a mixture: logits, then for each component means,
    /// log-diagonals and the rows below its diagonal.
    fn add_base(&mut self, flow: &Flow) {
        (self.base, self.base_slot) = (self.packed, self.slot);
        let Base::Mixture { components } = flow.base else { return };
        let (size, width) = (flow.modelled(), 4 * quads(flow.features));
        let logits = 4 * quads(components);
        let of_component = 2 * width + width * width;
        let component = |k: usize| logits + k * of_component;
        let pairs = |columns: usize| (0..components * columns).map(move |at| (at / columns, at % columns));
        (0..components).for_each(|k| self.put(Some([k; 2])));
        pairs(size).for_each(|(k, j)| self.put(Some([component(k) + j; 2])));
        pairs(size).for_each(|(k, i)| self.put(Some([component(k) + width + i; 2])));
        for (k, entry) in pairs(size * size) {
            let (i, j) = (entry / size, entry % size);
            self.put((i > j).then(|| [component(k) + (2 + i) * width + j; 2]));
        }
        let whole = (logits + components * of_component) / 4;
        self.packed += whole;
        self.slot += whole;
    }

    /// Places the layers of a network among its packed weights, and returns the quads of these.
    fn add_spans(&mut self, entry: &mut FusedTransform, mut spans: Vec<Span>) -> usize {
        let [natural, whole] = place(&mut spans);
        entry.depth = spans.len() as u32;
        entry.spans = self.shared_spans(&spans);
        (entry.weights_stride, entry.slot_stride) = (whole as u32, natural as u32);
        whole
    }

    /// Notes the place of the next parameter, in values: in the current network, in both orders.
    fn put(&mut self, places: Option<[usize; 2]>) {
        let packed = |place: usize| (4 * self.packed + place) as u32;
        self.places.push(places.map_or([NOWHERE; 2], |places| places.map(packed)));
        self.slot_places.push(places.map_or(NOWHERE, |[natural, _]| (4 * self.slot + natural) as u32));
    }

    /// Notes the places of a vector of `len` parameters, padded to `width` quads, of which there is a single copy.
    fn place_vector(&mut self, len: usize, width: usize) {
        (0..len).for_each(|index| self.put(Some([index; 2])));
        self.packed += width;
        self.slot += width;
    }

    /// Where these spans stand among all; couplings of one shape share theirs.
    fn shared_spans(&mut self, spans: &[Span]) -> u32 {
        let known = self.spans.windows(spans.len()).position(|window| window == spans);
        known.unwrap_or_else(|| {
            self.spans.extend(spans);
            self.spans.len() - spans.len()
        }) as u32
    }

    /// Number of packed values.
    pub fn len(&self) -> usize {
        4 * self.packed
    }

    /// Number of values in a slot of partial gradients.
    pub fn slot(&self) -> usize {
        4 * self.slot
    }

    /// Quads that a training step saves of a row for its backward pass.
    pub fn saved(&self) -> usize {
        self.saved
    }

    /// Whether there are none; never so in a valid flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each feature is to each transform [L, quads, 4].
    pub fn roles(&self) -> &[u32] {
        &self.roles
    }

    /// Where the copies of each parameter lie among the packed values; both are one where there is a single copy. Or
    /// [`NOWHERE`].
    pub fn places(&self) -> &[[u32; 2]] {
        &self.places
    }

    /// Where the gradient of each parameter lies in a slot of partial gradients, or [`NOWHERE`].
    pub fn slot_places(&self) -> &[u32] {
        &self.slot_places
    }

    /// Where the packed copies of the parameters lie.
    pub fn copies(&self) -> Copies {
        Copies { len: self.len(), places: self.places.clone() }
    }

    /// The packed copies of `parameters` `[P]`.
    pub fn pack(&self, parameters: &[f32]) -> Vec<f32> {
        self.copies().pack(parameters)
    }

    /// The uniform of `flow`'s fused kernels for batches shared by `groups` workgroups.
    pub fn uniform(&self, flow: &Flow, rules: uniforms::Rules, groups: usize) -> uniforms::Fused {
        let mut uniform = uniforms::Fused {
            rules,
            transform_count: self.transforms.len() as u32,
            features: flow.features as u32,
            modelled: flow.modelled() as u32,
            groups: groups as u32,
            slot_quads: self.slot as u32,
            base: self.base as u32,
            base_slot: self.base_slot as u32,
            ..Default::default()
        };
        uniform.transforms[..self.transforms.len()].copy_from_slice(&self.transforms);
        uniform.spans[..self.spans.len()].copy_from_slice(&self.spans);
        uniform
    }
}

/// Where a weight of a layer lies among a network's packed values, in both orders.
fn weight(span: &Span, out: usize, input: usize) -> [usize; 2] {
    let [inputs, outputs] = [span.input_quads as usize, span.output_quads as usize];
    [
        4 * (span.natural as usize + out * inputs) + input,
        4 * (span.transposed as usize + input * outputs) + out,
    ]
}

/// The same of an entry of its bias, of which there is a single copy.
fn bias(span: &Span, out: usize) -> [usize; 2] {
    [4 * span.bias as usize + out; 2]
}

/// The layers of a network whose last one gives out `last_quads`.
fn spans(layers: &[LinearSpan], last_quads: usize) -> Vec<Span> {
    let span = |(layer, linear): (usize, &LinearSpan)| {
        debug_assert!(linear.skip.is_none_or(|from| from + 2 == layer), "invariant: a block has two layers");
        let outputs = if layer + 1 == layers.len() { last_quads } else { quads(linear.outputs) };
        Span {
            input_quads: quads(linear.inputs) as u32,
            output_quads: outputs as u32,
            activated: linear.activated.into(),
            skips: linear.skip.is_some().into(),
            ..Span::default()
        }
    };
    layers.iter().enumerate().map(span).collect()
}

/// Gives the layers of a network their places, which count from its beginning: [out, in] and the bias of every layer, then
/// every layer's [in, out]. Returns the quads of the first half, and of the whole.
fn place(spans: &mut [Span]) -> [usize; 2] {
    let mut total = 0;
    let mut take = |count: u32| {
        total += count;
        total - count
    };
    for span in &mut *spans {
        span.natural = take(4 * span.input_quads * span.output_quads);
        span.bias = take(span.output_quads);
    }
    let natural = take(0);
    for span in spans {
        span.transposed = take(4 * span.input_quads * span.output_quads);
    }
    [natural as usize, take(0) as usize]
}

/// What the kernels compute of a row: matrix elements of networks, of every layer, of the last ones alone, of the first
/// ones of the first transform, and of some more; and operations outside of products, forward or inverse and backward.
#[derive(Default)]
pub(super) struct Work {
    pub all: usize,
    pub last: usize,
    pub first_transform: usize,
    /// Of the hidden layers of the last transform, and its networks.
    pub last_hidden: [usize; 2],
    pub forward: usize,
    pub backward: usize,
}

impl Work {
    pub fn new(flow: &Flow, layout: &Layout) -> Self {
        let mut work = Self::default();
        for (transform, block) in flow.transforms.iter().zip(&layout.blocks) {
            match transform {
                Transform::Coupling(coupling) => work.add(coupling, block),
                // A difference, a product, an exponential and a sum; products and sums.
                Transform::Actnorm => work.add_elements(flow, [13, 16]),
                Transform::Lu => {
                    let triangle = flow.modelled() * flow.modelled();
                    work.all += 2 * triangle;
                    work.last += triangle;
                    work.add_elements(flow, [13, 15]);
                }
                Transform::Permutation { .. } => {}
            }
        }
        if let Base::Mixture { components } = flow.base {
            let numbers = components * flow.modelled();
            // Entries of a component's factor three times forward, with a difference; three times as often backward.
            let entries = numbers * (flow.modelled() + 1) / 2;
            work.forward += 3 * entries + 16 * numbers + 30 * components;
            work.backward += 9 * entries + 26 * numbers + 50 * components;
        }
        if let (Some(Transform::Coupling(_)), Some(block)) = (flow.transforms.last(), layout.blocks.last()) {
            let hidden = |network: &NetworkSpan| -> usize {
                let layers = network.layers.iter().take(network.layers.len() - 1);
                layers.map(|linear| linear.inputs * linear.outputs).sum()
            };
            work.last_hidden = [block.networks.iter().map(hidden).sum(), block.networks.len()];
        }
        work.first_transform = match (&flow.transforms[0], &layout.blocks[0].networks[..]) {
            (Transform::Lu, _) => flow.modelled() * flow.modelled(),
            (_, networks) => {
                networks.iter().map(|network| network.layers[0].inputs * network.layers[0].outputs).sum()
            }
        };
        work
    }

    /// So many operations for each modelled feature.
    fn add_elements(&mut self, flow: &Flow, [forward, backward]: [usize; 2]) {
        self.forward += forward * flow.modelled();
        self.backward += backward * flow.modelled();
    }

    fn add(&mut self, coupling: &Coupling, block: &Block) {
        let transformed = coupling.split().1.len();
        let [forward, backward] = coupling.bijector.flops();
        self.forward += transformed * forward;
        self.backward += transformed * backward;
        for network in &block.networks {
            let Some((last, hidden)) = network.layers.split_last() else { continue };
            let outputs =
                if block.networks.len() == 1 { transformed * network.numbers } else { last.outputs };
            let hidden: usize = hidden.iter().map(|linear| linear.inputs * linear.outputs).sum();
            self.last += last.inputs * outputs;
            self.all += hidden + last.inputs * outputs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ConditionerForm;

    #[test]
    fn every_weight_is_packed_in_both_orders_between_zeros() {
        let flow = Flow::new(3, 2, &[5, 6]).expect("valid");
        let layout = Layout::new(&flow);
        let fused_layout = FusedLayout::new(&flow, &layout);
        assert_eq!(fused_layout.spans.len(), 3, "networks of one shape share their spans");
        let parameters: Vec<f32> = (1..=layout.total).map(|value| value as f32).collect();
        let packed = fused_layout.pack(&parameters);
        let weights: usize =
            layout.tensors.iter().filter(|tensor| tensor.shape.len() == 2).map(|t| t.len()).sum();
        let filled = packed.iter().filter(|&&value| value != 0.0).count();
        assert_eq!(filled, layout.total + weights, "weights twice and biases once");

        // Coupling 1, translate, layer 1: 5 inputs in 2 quads, 6 outputs in 2 quads.
        let (entry, span) = (fused_layout.transforms[1], fused_layout.spans[1]);
        assert_eq!((span.input_quads, span.output_quads), (2, 2));
        let natural = layout.blocks[1].networks[1].layers[1];
        let network = &packed[4 * (entry.weights + entry.weights_stride) as usize..];
        let value = |out: usize, input: usize| parameters[natural.weight + out * 5 + input];
        assert_eq!(network[4 * span.transposed as usize + 8 * 4 + 5], value(5, 4));
        assert_eq!(network[4 * span.natural as usize + 8 * 5 + 4], value(5, 4));
        assert_eq!(network[4 * span.bias as usize + 5], parameters[natural.bias + 5]);
    }

    #[test]
    fn every_parameter_has_a_place_of_its_own_in_a_slot() {
        let flow = Flow::conditional(2, 3, 2, &[5, 6]).expect("valid");
        let fused_layout = FusedLayout::new(&flow, &Layout::new(&flow));
        let mut places = fused_layout.slot_places().to_vec();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), fused_layout.places().len());
        assert!(places.last().is_some_and(|&last| (last as usize) < fused_layout.slot()));
    }

    #[test]
    fn roles_are_places_among_the_transformed_features_padded_with_kept_ones() {
        let flow = Flow::new(5, 2, &[4]).expect("valid");
        let k = KEPT;
        assert_eq!(
            FusedLayout::new(&flow, &Layout::new(&flow)).roles(),
            [k, 0, k, 1, k, k, k, k, 0, k, 1, k, 2, k, k, k]
        );
    }

    #[test]
    fn a_single_network_is_packed_for_its_transformed_features_alone() {
        let flow = Flow::new(5, 2, &[6]).expect("valid").with_conditioner(ConditionerForm::Joint);
        let layout = Layout::new(&flow);
        let fused_layout = FusedLayout::new(&flow, &layout);
        assert_eq!(
            fused_layout.spans.len(),
            4,
            "couplings that transform two and three features have spans of their own"
        );
        let parameters: Vec<f32> = (1..=layout.total).map(|value| value as f32).collect();
        let packed = fused_layout.pack(&parameters);
        // Coupling 1 transforms features 0, 2 and 4: feature 2 is the second, and its numbers begin a quad.
        let (entry, span) = (fused_layout.transforms[1], fused_layout.spans[3]);
        assert_eq!((span.input_quads, span.output_quads, entry.transformed), (2, 3, 3));
        let last = layout.blocks[1].networks[0].layers[1];
        let network = &packed[4 * entry.weights as usize..];
        let (weight, bias) =
            (|out: usize, input: usize| parameters[last.weight + out * 6 + input], last.bias);
        for k in 0..2 {
            assert_eq!(network[4 * span.transposed as usize + 12 * 5 + 4 + k], weight(2 * 2 + k, 5));
            assert_eq!(network[4 * span.natural as usize + 8 * (4 + k) + 5], weight(2 * 2 + k, 5));
            assert_eq!(network[4 * span.bias as usize + 4 + k], parameters[bias + 2 * 2 + k]);
        }
        // Features 1 and 3 are kept: their numbers are packed nowhere.
        for p in [last.weight + 2 * 6, last.weight + 7 * 6 + 5, bias + 3, bias + 6] {
            assert_eq!((fused_layout.places()[p], fused_layout.slot_places()[p]), ([NOWHERE; 2], NOWHERE));
        }
        let nowhere = fused_layout.slot_places().iter().filter(|&&place| place == NOWHERE).count();
        assert_eq!(nowhere, (3 + 2) * 2 * (6 + 1));
    }
}
