//! The dispatches of a permutation: one forward, one backward.

use super::super::kernel::{REORDER, REORDER_BACKWARD};
use super::super::plan::{BufferId, Program, groups_of_256};
use super::super::uniforms;
use super::{Cost, Direction, Recorder, TransformBackward, TransformPass};

/// For each of `features` its place before the permutation, then its place after it: [2, D]. The context passes.
pub(super) fn places(permutation: &[usize], features: usize) -> Vec<u32> {
    let mut places: Vec<u32> = (0..2 * features).map(|place| (place % features) as u32).collect();
    for (to, &from) in permutation.iter().enumerate() {
        places[to] = from as u32;
        places[features + from] = to as u32;
    }
    places
}

impl Recorder<'_> {
    /// What a kernel is told that puts features at their places after the permutation, or before it.
    fn reordering(&self, transform: usize, direction: Direction) -> uniforms::Layer {
        let uniform = self.uniform(transform);
        match direction {
            Direction::Forward => uniform,
            Direction::Inverse => uniforms::Layer { order: uniform.order + uniform.features, ..uniform },
        }
    }

    pub(super) fn permutation_rows(&self, program: &mut Program, pass: &TransformPass) {
        let shared = &self.shared;
        let values = shared.capacity * self.flow.features;
        program.dispatches.push(Self::untiled(
            &REORDER,
            format!("transforms.{} permutation", pass.transform),
            Vec::new(),
            &uniforms::Layer {
                begins: u32::from(pass.begins),
                ..self.reordering(pass.transform, pass.direction)
            },
            vec![shared.extent, shared.order, pass.source, pass.destination, shared.log_dets],
            groups_of_256(values),
            Cost { flops: 0, words: values * if pass.begins { 3 } else { 2 } },
        ));
    }

    /// The buffer that holds the gradient afterwards: no two threads may share one.
    pub(super) fn permutation_backward(&self, program: &mut Program, pass: &TransformBackward) -> BufferId {
        let shared = &self.shared;
        let values = shared.capacity * self.flow.features;
        // Nothing before the first transform asks for the gradient at its input.
        if !self.wants_input_gradient(pass.transform) {
            return pass.d_coupling;
        }
        let mut buffers = pass.gradients.d_coupling.iter().copied();
        let other = buffers.find(|&buffer| buffer != pass.d_coupling);
        let d_coupling = other.expect("invariant: there are two where there is a permutation");
        let [passed, each] = self.passed(pass.transform);
        let source = pass.rows[0];
        program.dispatches.push(Self::untiled(
            &REORDER_BACKWARD,
            format!("transforms.{} permutation", pass.transform),
            self.through(pass.transform),
            &self.reordering(pass.transform, Direction::Inverse),
            vec![
                shared.extent,
                source,
                shared.order,
                pass.d_coupling,
                self.saved(pass.transform, pass.before, source),
                d_coupling,
            ],
            groups_of_256(values),
            Cost { flops: shared.capacity * each * passed, words: 2 * values + 4 * shared.capacity * passed },
        ));
        d_coupling
    }
}
