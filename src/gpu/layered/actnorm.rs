//! The dispatches of an actnorm: one forward, one backward.

use super::super::kernel::{ACTNORM_BACKWARD, ACTNORM_FORWARD, ACTNORM_INVERSE};
use super::super::plan::{Program, groups_of_256, lanes};
use super::super::uniforms;
use super::{Cost, Direction, Recorder, TransformBackward, TransformPass};

impl Recorder<'_> {
    /// What its kernels are told: where its shifts and its log-scales begin.
    fn actnorm(&self, transform: usize) -> uniforms::Layer {
        let start = self.layout.blocks[transform].range.start;
        let [weight, bias] = [start, start + self.flow.modelled()].map(|offset| offset as u32);
        uniforms::Layer { weight, bias, ..self.uniform(transform) }
    }

    pub(super) fn actnorm_rows(&self, program: &mut Program, pass: &TransformPass) {
        let &TransformPass { direction, transform, begins, source, destination, .. } = pass;
        let shared = &self.shared;
        let values = shared.capacity * self.flow.features;
        program.dispatches.push(Self::untiled(
            match direction {
                Direction::Forward => &ACTNORM_FORWARD,
                Direction::Inverse => &ACTNORM_INVERSE,
            },
            format!("transforms.{transform} actnorm"),
            Vec::new(),
            &uniforms::Layer { begins: u32::from(begins), ..self.actnorm(transform) },
            vec![shared.extent, shared.parameters, source, destination, shared.log_dets],
            groups_of_256(values),
            Cost { flops: 12 * values, words: values * if begins { 3 } else { 4 } },
        ));
    }

    pub(super) fn actnorm_backward(&self, program: &mut Program, pass: &TransformBackward) {
        let &TransformBackward { transform, d_coupling, rows: [source, _], before, gradients, .. } = pass;
        let shared = &self.shared;
        let (rows, features) = (shared.capacity, self.flow.features);
        // Rows are split, whoever asks for sums of them.
        let splits = rows.div_ceil(gradients.rows_per_split);
        let rows_per_split = gradients.rows_per_split as u32;
        let [passed, each] = self.passed(transform);
        program.dispatches.push(Self::untiled(
            &ACTNORM_BACKWARD,
            format!("transforms.{transform} actnorm"),
            self.through(transform),
            &uniforms::Layer { rows_per_split, ..self.actnorm(transform) },
            vec![
                shared.extent,
                shared.parameters,
                source,
                shared.order,
                gradients.partials,
                self.saved(transform, before, source),
                d_coupling,
            ],
            [features.div_ceil(lanes(features) as usize) as u32, splits as u32, 1],
            Cost { flops: rows * (8 * features + each * passed), words: rows * 3 * (features + passed) },
        ));
    }
}
