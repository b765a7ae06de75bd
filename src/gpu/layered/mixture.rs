//! The dispatches of a base density that is a Gaussian mixture. Rows are first whitened by each component, a dispatch; then
//! summed to log p, and to the components' responsibilities; then a dispatch makes all gradients. Sampling begins with
//! a dispatch that draws from the mixture.

use super::super::kernel::{
    Kernel, MIXTURE_BACKWARD, MIXTURE_DENSITY, MIXTURE_NOISE, MIXTURE_RESPONSIBILITIES, MIXTURE_WHITEN,
};
use super::super::plan::{BufferId, Dispatch, Plan, Program, grid, groups_of_256, lanes};
use super::super::uniforms;
use super::{Cost, Gradients, Recorder};
use crate::flow::{Base, Flow};

/// Rows in a workgroup of `mixture_noise`.
const NOISE_ROWS: usize = 64;
/// Threads of the other kernels' workgroups.
const THREADS: usize = 256;

/// Appends the dispatches of a mixture of so many components.
pub(super) struct Mixture<'a> {
    recorder: &'a Recorder<'a>,
    components: usize,
    size: usize,
}

impl Recorder<'_> {
    /// Allocates what a mixture keeps of `capacity` rows, where the base density is one: each row as each component sees it,
    /// and the component's responsibility for the row [K, capacity, M + 1].
    pub(super) fn whitened(plan: &mut Plan, flow: &Flow, capacity: usize) -> Option<BufferId> {
        let Base::Mixture { components } = flow.base else { return None };
        Some(plan.buffer("rows whitened by components", components * capacity * (flow.modelled() + 1)))
    }

    pub(super) fn mixture(&self, components: usize) -> Mixture<'_> {
        Mixture { recorder: self, components, size: self.flow.modelled() }
    }
}

impl Mixture<'_> {
    /// What its kernels are told.
    fn uniform(&self) -> uniforms::Layer {
        let recorder = self.recorder;
        uniforms::Layer {
            weight: recorder.layout.base.start as u32,
            components: self.components as u32,
            lanes: lanes(recorder.flow.features.max(self.components)),
            ..recorder.uniform(recorder.flow.transforms.len())
        }
    }

    fn whitened(&self) -> BufferId {
        self.recorder.shared.whitened.expect("invariant: allocated for a mixture")
    }

    /// Entries in use of all factors A_k.
    fn entries(&self) -> usize {
        self.components * self.size * (self.size + 1) / 2
    }

    /// Numbers of a row that is whitened by all components.
    fn numbers(&self) -> usize {
        self.components * self.size
    }

    fn whiten(&self, latent: BufferId) -> Dispatch {
        let shared = &self.recorder.shared;
        let rows = shared.capacity;
        Recorder::untiled(
            &MIXTURE_WHITEN,
            "base density: rows whitened".into(),
            Vec::new(),
            &self.uniform(),
            vec![shared.extent, shared.parameters, latent, self.whitened()],
            groups_of_256(rows * self.numbers()),
            // A difference, a product and a sum for each entry; an exponential for each number.
            Cost {
                flops: rows * (3 * self.entries() + 10 * self.numbers()),
                words: rows * (self.size + self.numbers()) + self.entries() + self.numbers(),
            },
        )
    }

    /// A dispatch that sums rows over components, which reads `read` words of a row and writes `written`.
    fn sum_rows(&self, kernel: &'static Kernel, buffers: Vec<BufferId>, moved: usize) -> Dispatch {
        let recorder = self.recorder;
        let (rows, features) = (recorder.shared.capacity, recorder.flow.features);
        let uniform = self.uniform();
        let constants = match kernel.bindings.iter().any(|binding| binding.name == "d_coupling") {
            true => vec![recorder.differentiated()],
            false => Vec::new(),
        };
        Recorder::untiled(
            kernel,
            "base density".into(),
            constants,
            &uniform,
            buffers,
            [(rows * uniform.lanes as usize).div_ceil(THREADS) as u32, 1, 1],
            // Squares and log-diagonals, twice; exponentials of terms and weights.
            Cost {
                flops: rows * (6 * self.numbers() + 40 * self.components + features),
                words: rows * (self.numbers() + features + moved) + self.numbers() + self.components,
            },
        )
    }

    pub(super) fn log_density(
        &self,
        program: &mut Program,
        latent: BufferId,
        log_prob: BufferId,
        log_det: BufferId,
    ) {
        let shared = &self.recorder.shared;
        let buffers =
            vec![shared.extent, shared.parameters, self.whitened(), shared.log_dets, log_prob, log_det];
        program.dispatches.extend([self.whiten(latent), self.sum_rows(&MIXTURE_DENSITY, buffers, 2)]);
    }

    /// log p of latent rows, and the gradients; `rows`: the latent ones, and what the transform before them saved.
    pub(super) fn backward(
        &self,
        program: &mut Program,
        [latent, saved]: [BufferId; 2],
        gradients: &Gradients,
        log_prob: BufferId,
    ) {
        let recorder = self.recorder;
        let shared = &recorder.shared;
        let (rows, features) = (shared.capacity, recorder.flow.features);
        let d_coupling = gradients.d_coupling[0];
        let bound =
            vec![shared.extent, shared.parameters, self.whitened(), d_coupling, shared.log_dets, log_prob];
        let summed = self.sum_rows(&MIXTURE_RESPONSIBILITIES, bound, 1 + self.components);
        program.dispatches.extend([self.whiten(latent), summed]);

        let behind = recorder.flow.transforms.len();
        let [passed, each] = recorder.passed(behind);
        let splits = recorder.splits(gradients);
        let input_groups = (rows * features).div_ceil(THREADS);
        // Logits and means of a component, and the entries of all factors.
        let of_split = self.components + (self.numbers() * self.size).div_ceil(THREADS);
        let sums = if splits > 0 { 4 * self.entries() + 2 * self.numbers() + 3 * self.components } else { 0 };
        let read = rows * (self.numbers() + self.components + self.size);
        let parameters = self.entries() + self.numbers() + self.components;
        program.dispatches.push(Recorder::untiled(
            &MIXTURE_BACKWARD,
            "base density".into(),
            recorder.through(behind),
            &uniforms::Layer {
                input_groups: input_groups as u32,
                rows_per_split: gradients.rows_per_split as u32,
                ..self.uniform()
            },
            vec![
                shared.extent,
                shared.parameters,
                latent,
                shared.order,
                self.whitened(),
                gradients.partials,
                saved,
                d_coupling,
            ],
            grid(input_groups + splits * of_split),
            Cost {
                flops: rows * (3 * self.entries() + sums + each * passed),
                words: read + rows * (features + 3 * passed) + (1 + splits) * parameters,
            },
        ));
    }

    pub(super) fn draw(&self, normal_table: BufferId, latent: BufferId) -> Dispatch {
        let shared = &self.recorder.shared;
        let rows = shared.capacity;
        Dispatch {
            kernel: &MIXTURE_NOISE,
            constants: Vec::new(),
            label: "rows of the mixture".into(),
            uniform: bytemuck::bytes_of(&uniforms::Latent::default()).to_vec(),
            buffers: vec![normal_table, latent, shared.parameters],
            workgroups: grid(rows.div_ceil(NOISE_ROWS)),
            // A component's factor, and the weights of all.
            flops: (rows * (2 * self.entries() / self.components + 12 * self.size + 30 * self.components))
                as u64,
            bytes: (4 * rows * self.size) as u64,
        }
    }
}
