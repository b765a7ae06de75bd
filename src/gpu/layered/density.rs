//! The dispatches that sum a row: log-determinant and log-density, and where the backward pass begins.

use super::super::kernel::{Kernel, LOG_DENSITY, LOG_DENSITY_BACKWARD, LOG_DETERMINANT};
use super::super::plan::{BufferId, Program, lanes};
use super::{Cost, Recorder, Stored};

impl Recorder<'_> {
    /// A dispatch that sums features, [`lanes`] threads to a row; `cost` is that of a row.
    fn sum_rows(
        &self,
        program: &mut Program,
        kernel: &'static Kernel,
        buffers: Vec<BufferId>,
        Cost { flops, words }: Cost,
    ) {
        let behind = self.flow.transforms.len();
        let rows = self.shared.capacity;
        program.dispatches.push(Self::untiled(
            kernel,
            "base density".into(),
            self.through(behind),
            &self.uniform(behind),
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
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, latent, shared.shares, log_prob, log_det];
        let cost = Cost { flops: 3 * features, words: 2 * features + 2 };
        self.sum_rows(program, &LOG_DENSITY, buffers, cost);
    }

    /// log_det of every row.
    pub(super) fn log_determinant(&self, program: &mut Program, log_det: BufferId) {
        let (features, shared) = (self.flow.features, &self.shared);
        let buffers = vec![shared.extent, shared.shares, log_det];
        self.sum_rows(program, &LOG_DETERMINANT, buffers, Cost { flops: features, words: features + 1 });
    }

    /// log p of every row from latent rows, and the gradient at them, passed on through the last transform where
    /// [`Recorder::coupling_before`] says so; that one has `stored`.
    pub(super) fn log_density_backward(
        &self,
        program: &mut Program,
        latent: BufferId,
        stored: &Stored,
        log_prob: BufferId,
        d_coupling: BufferId,
    ) {
        let (features, shared) = (self.flow.features, &self.shared);
        let behind = self.flow.transforms.len();
        let [passed, each] = self.passed(behind);
        let saved = self.saved(behind, Some(stored), latent);
        let buffers = vec![shared.extent, latent, shared.order, saved, d_coupling, shared.shares, log_prob];
        let cost = Cost { flops: 3 * features + each * passed, words: 3 * features + 3 * passed + 1 };
        self.sum_rows(program, &LOG_DENSITY_BACKWARD, buffers, cost);
    }
}
