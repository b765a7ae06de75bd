//! A flow and its transforms as the engine executes them: on a tile of rows, with packed parameters.

use std::fmt::Debug;
use std::ops::Range;

use crate::flow::{Flow, Transform};
use crate::layout::Layout;

use super::Real;
use super::actnorm::ActnormCode;
use super::base::{self, BaseDensity};
use super::bijector::Planes;
use super::buffer::Buffer;
use super::conditioner::{self, Kept, LayerGradients};
use super::coupling::CouplingCode;
use super::lu::LuCode;
use super::mixture::MixtureScratch;
use super::permutation::PermutationCode;

/// Sizes of a segment of the parameters of a transform or base density ([`Block::segments`](crate::layout::Block::segments)),
/// which one thread packs and updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentSize {
    /// Values of its packed parameters.
    pub weights: usize,
    /// Values of its packed gradient.
    pub gradient: usize,
}

/// Rows in the forward pass or the inverse.
pub(super) struct Tile<'a, R> {
    /// [T, D], in place.
    pub values: &'a mut [R],
    /// Log-determinants of the transforms so far `[T]`.
    pub log_det: &'a mut [R],
}

/// What goes through the backward pass.
pub(super) struct Backward<'a, R> {
    /// d_z [T, D] of the transform's output, in place: then d_x of its input.
    pub values: &'a mut [R],
    /// The gradient at the log-determinant of each row `[T]`.
    pub d_log_det: &'a [R],
    /// The transform's packed gradient, segment after segment; `None` where only d_x is wanted.
    pub gradient: Option<Sum<'a, R>>,
    /// Whether d_x is wanted.
    pub wants_input: bool,
}

/// Where a gradient goes.
pub(super) struct Sum<'a, R> {
    pub values: &'a mut [R],
    /// Whether it is added to what is there.
    pub add: bool,
}

impl<R> Sum<'_, R> {
    /// A range of it.
    pub fn range(&mut self, range: Range<usize>) -> Sum<'_, R> {
        Sum { values: &mut self.values[range], add: self.add }
    }
}

/// What a transform leaves of its forward pass for the backward pass. A kind uses what it needs; the rest stays empty.
#[derive(Debug, Default)]
pub(super) struct Trace<R> {
    pub kept: Kept<R>,
    pub networks: Vec<conditioner::Trace<R>>,
    /// At transformed features, in rows
    /// [`Ports::transformed_stride`](super::packed::Ports::transformed_stride) apart: θ, the results, and what the
    /// bijector saves.
    pub theta: Planes<R>,
    pub z: Buffer<R>,
    pub saved: Planes<R>,
}

/// Buffers that hold nothing from one transform to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch<R> {
    pub gradients: LayerGradients<R>,
    /// At transformed features: log-determinants, gradients of z and then x, and of θ.
    pub log_det: Buffer<R>,
    pub d_values: Buffer<R>,
    pub d_theta: Planes<R>,
    /// What a network of several numbers yields, or the gradient at it, in rows
    /// [`PackedNetwork::output_stride`](super::packed::PackedNetwork::output_stride) apart.
    pub output: Buffer<R>,
    /// At kept features.
    pub d_kept: Buffer<R>,
    /// Of a base density that is a mixture.
    pub mixture: MixtureScratch<R>,
}

/// The parameters of a transform or a base density, as threads pack them and take their gradient. What has none keeps the
/// methods as they are.
pub(super) trait Parameters<R: Real> {
    /// Sizes of its segments, in the order of [`Block::segments`](crate::layout::Block::segments).
    fn segments(&self) -> Vec<SegmentSize> {
        Vec::new()
    }

    /// Packs a segment's parameters.
    fn pack(&self, _segment: usize, _flat: &[R], _packed: &mut [R]) {}

    /// Unpacks a segment's gradient; `weights`: its packed parameters. Entries of `flat` without a gradient stay zero.
    fn unpack(&self, _segment: usize, _weights: &[R], _packed: &[R], _flat: &mut [R]) {}
}

/// The code of a transform.
pub(super) trait TransformCode<R: Real>: Parameters<R> + Debug + Send + Sync {
    /// Data → latent. `weights`: its segments, packed.
    fn forward(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    );

    /// Latent → data; nothing in `trace` is of use afterwards.
    fn inverse(
        &self,
        weights: &[Buffer<R>],
        tile: &mut Tile<R>,
        trace: &mut Trace<R>,
        scratch: &mut Scratch<R>,
    );

    /// Backward of [`TransformCode::forward`], whose `trace` this is.
    fn backward(
        &self,
        weights: &[Buffer<R>],
        trace: &Trace<R>,
        pass: &mut Backward<R>,
        scratch: &mut Scratch<R>,
    );
}

/// The code of a transform or of the base density, and where its segments stand.
#[derive(Debug)]
pub(super) struct Placed<C: ?Sized> {
    pub code: Box<C>,
    /// Number of its first segment among all, and how many there are.
    first_segment: usize,
    segments: usize,
    /// Its packed gradient among all.
    pub gradient: Range<usize>,
}

/// A segment and where its packed gradient lies.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Number of its transform, or that of transforms for the base density; and its own within that.
    owner: usize,
    index: usize,
    /// Its range of the flat buffer.
    pub flat: Range<usize>,
    pub weights: usize,
    pub gradient: Range<usize>,
}

/// A precision whose transforms are compiled in this crate alone.
///
/// Generic code is compiled in each crate that uses it. A flow's code holds its transforms as trait objects, so each crate that
/// makes an engine would compile all of them once more. The impls below are not generic. Sealed: the module is private.
pub trait Compiled: Sized {
    /// The code of `flow`.
    fn flow_code(flow: &Flow, layout: &Layout) -> FlowCode<Self>;
}

impl Compiled for f32 {
    fn flow_code(flow: &Flow, layout: &Layout) -> FlowCode<Self> {
        FlowCode::new(flow, layout)
    }
}

impl Compiled for f64 {
    fn flow_code(flow: &Flow, layout: &Layout) -> FlowCode<Self> {
        FlowCode::new(flow, layout)
    }
}

/// A flow's transforms in data → latent order, and its base density.
#[derive(Debug)]
pub struct FlowCode<R> {
    pub(super) features: usize,
    pub(super) transforms: Vec<Placed<dyn TransformCode<R>>>,
    pub(super) base: Placed<dyn BaseDensity<R>>,
    /// They tile the flat buffer in order.
    pub(super) segments: Vec<Segment>,
    /// Values of the whole packed gradient.
    pub(super) gradient: usize,
}

impl<R: Real> FlowCode<R> {
    fn new(flow: &Flow, layout: &Layout) -> Self {
        let mut segments = Vec::new();
        let transforms: Vec<Placed<dyn TransformCode<R>>> = flow
            .transforms
            .iter()
            .zip(&layout.blocks)
            .enumerate()
            .map(|(index, (transform, block))| {
                let code: Box<dyn TransformCode<R>> = match transform {
                    Transform::Coupling(coupling) => Box::new(CouplingCode::new(flow, coupling, block)),
                    Transform::Actnorm => Box::new(ActnormCode::new(flow)),
                    Transform::Lu => Box::new(LuCode::new(flow)),
                    Transform::Permutation { permutation } => {
                        Box::new(PermutationCode::new(flow, permutation))
                    }
                };
                let sizes = code.segments();
                Placed::new(code, index, &sizes, block.segments(), &mut segments)
            })
            .collect();
        let code = base::density(flow);
        let sizes = code.segments();
        let base = Placed::new(code, transforms.len(), &sizes, vec![layout.base.clone()], &mut segments);
        let gradient = base.gradient.end;
        Self { features: flow.features, transforms, base, segments, gradient }
    }

    /// Where segments lie in the flat buffer.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.segments.iter().map(|segment| segment.flat.clone())
    }

    /// Packs one of all segments from its range of the flat parameters.
    pub fn pack(&self, segment: usize, flat: &[R], packed: &mut [R]) {
        let Segment { owner, index, .. } = self.segments[segment];
        self.owner(owner).pack(index, flat, packed);
    }

    /// Unpacks the gradient of one of all segments, whose packed parameters are `weights`, into its range of the flat
    /// gradient.
    pub fn unpack(&self, segment: usize, weights: &[R], packed: &[R], flat: &mut [R]) {
        let Segment { owner, index, .. } = self.segments[segment];
        self.owner(owner).unpack(index, weights, packed, flat);
    }

    fn owner(&self, owner: usize) -> &dyn Parameters<R> {
        match self.transforms.get(owner) {
            Some(placed) => &*placed.code,
            None => &*self.base.code,
        }
    }
}

impl<C: ?Sized> Placed<C> {
    /// Places the code of number `owner` after all in `segments`, to which its own are added: of these `sizes`, in these
    /// ranges of the flat buffer.
    fn new(
        code: Box<C>,
        owner: usize,
        sizes: &[SegmentSize],
        ranges: Vec<Range<usize>>,
        segments: &mut Vec<Segment>,
    ) -> Self {
        let start = segments.last().map_or(0, |segment: &Segment| segment.gradient.end);
        let (first_segment, mut end) = (segments.len(), start);
        for (index, (size, flat)) in sizes.iter().zip(ranges).enumerate() {
            let gradient = end..end + size.gradient;
            end = gradient.end;
            segments.push(Segment { owner, index, flat, weights: size.weights, gradient });
        }
        Self { code, first_segment, segments: sizes.len(), gradient: start..end }
    }

    /// Its segments of all `weights`.
    pub fn weights<'a, R>(&self, weights: &'a [Buffer<R>]) -> &'a [Buffer<R>] {
        &weights[self.first_segment..][..self.segments]
    }
}
