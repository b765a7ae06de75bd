//! The base density: the dispatches that sum a row, log-determinant and log-density, and where the backward pass begins.
//! Those of the standard normal are here, and those of a mixture in a file of their own.

use super::super::kernel::{Kernel, LATENT_NOISE, LOG_DENSITY, LOG_DENSITY_BACKWARD, LOG_DETERMINANT};
use super::super::plan::{BufferId, Dispatch, Program, groups_of_256, lanes};
use super::super::uniforms;
use super::{Cost, Gradients, Recorder, Stored};
use crate::flow::Base;

impl Recorder<'_> {
    /// A dispatch that sums features, [`lanes`] threads to a row; `cost` is that of a row.
    fn sum_rows(
        &self,
        program: &mut Program,
        kernel: &'static Kernel,
        buffers: Vec<BufferId>,
        Cost { flops, words }: Cost,
    ) {
        let end = self.flow.transforms.len();
        let rows = self.shared.capacity;
        program.dispatches.push(Self::untiled(
            kernel,
            "base density".into(),
            self.through(end),
            &self.uniform(end),
            buffers,
            [(rows * lanes(self.flow.features) as usize).div_ceil(256) as u32, 1, 1],
            Cost { flops: rows * flops, words: rows * words },
        ));
    }

    /// log_det and log p of every row from latent rows.
    pub(super) fn log_density(
        &self,
        program: &mut Program,
        latent: BufferId,
        log_prob: BufferId,
        log_det: BufferId,
    ) {
        if let Base::Mixture { components } = self.flow.base {
            self.mixture(components).log_density(program, latent, log_prob, log_det);
            return;
        }
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, latent, shared.log_dets, log_prob, log_det];
        let cost = Cost { flops: 3 * features, words: 2 * features + 2 };
        self.sum_rows(program, &LOG_DENSITY, buffers, cost);
    }

    /// log_det of every row.
    pub(super) fn log_determinant(&self, program: &mut Program, log_det: BufferId) {
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, shared.log_dets, log_det];
        self.sum_rows(program, &LOG_DETERMINANT, buffers, Cost { flops: features, words: features + 1 });
    }

    /// log p of every row from latent rows, and the gradient at them, passed on through the last transform where
    /// [`Recorder::coupling_before`] says so; that one has `stored`.
    pub(super) fn base_backward(
        &self,
        program: &mut Program,
        latent: BufferId,
        stored: &Stored,
        gradients: &Gradients,
        log_prob: BufferId,
    ) {
        let (features, shared) = (self.flow.features, &self.shared);
        let end = self.flow.transforms.len();
        let saved = self.saved(end, Some(stored), latent);
        if let Base::Mixture { components } = self.flow.base {
            self.mixture(components).backward(program, [latent, saved], gradients, log_prob);
            return;
        }
        let [passed, each] = self.passed(end);
        let d_coupling = gradients.d_coupling[0];
        let buffers = vec![shared.extent, latent, shared.order, saved, d_coupling, shared.log_dets, log_prob];
        let cost = Cost { flops: 3 * features + each * passed, words: 3 * features + 3 * passed + 1 };
        self.sum_rows(program, &LOG_DENSITY_BACKWARD, buffers, cost);
    }

    /// Rows drawn from the base density, as the [`uniforms::Latent`] of the dispatch asks for them.
    pub(super) fn draw(&self, normal_table: BufferId, latent: BufferId) -> Dispatch {
        if let Base::Mixture { components } = self.flow.base {
            return self.mixture(components).draw(normal_table, latent);
        }
        let (rows, modelled) = (self.shared.capacity, self.flow.modelled());
        Dispatch {
            kernel: &LATENT_NOISE,
            constants: Vec::new(),
            label: "latent noise".into(),
            uniform: bytemuck::bytes_of(&uniforms::Latent::default()).to_vec(),
            buffers: vec![normal_table, latent],
            workgroups: groups_of_256(rows * modelled.div_ceil(2)),
            flops: 0,
            bytes: (4 * rows * modelled) as u64,
        }
    }
}
