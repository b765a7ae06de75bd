//! The structs that Rust and WGSL share. A test parses the shaders and holds sizes and offsets to each other.

use bytemuck::{Pod, Zeroable};

macro_rules! shared {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
        #[allow(missing_docs)] // the WGSL struct of the same name documents each field
        pub struct $name { $(pub $field: $kind),* }

        impl Default for $name {
            fn default() -> Self {
                Self::zeroed()
            }
        }

        impl $name {
            /// Name and byte offset of every field, for the agreement test.
            pub const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    };
}

shared! {
    /// Rows that hold data; `shaders/shared/prelude.wgsl`.
    Extent { rows: u32, first: u32 }
}

shared! {
    /// A linear layer of both networks of a coupling, and the coupling; `shaders/layered/layer.wgsl`.
    Layer {
        inputs: u32, outputs: u32, input_width: u32, output_width: u32, weight: u32, bias: u32, network_stride: u32,
        parameters: u32, source_stride: u32, d_output: u32, capacity: u32, features: u32, order: u32, kept: u32,
        through: u32, through_bound: f32, rows_per_split: u32, input_groups: u32, begins: u32, bound: f32, lanes: u32,
        modelled: u32, factors: u32, components: u32,
    }
}

shared! {
    /// Latent noise; `shaders/layered/latent.wgsl`.
    Latent {
        rows: u32, features: u32, first_row: u32, key_low: u32, key_high: u32, temperature: f32, modelled: u32,
        base: u32, components: u32,
    }
}

shared! {
    /// What a training carries from step to step; `shaders/shared/optimiser_state.wgsl`.
    TrainState {
        rows: u32, first: u32, step: u32, epoch: u32, halted: u32, improved: u32, bias_correction1: f32,
        bias_correction2: f32, learning_rate: f32, clip: f32, nll_sum: f32, norm_sum: f32, norm_steps: u32,
        best_nll: f32, records: u32, padding: u32,
    }
}

shared! {
    /// What a training keeps to; `shaders/shared/optimiser_state.wgsl`.
    Rules {
        train_rows: u32, batch: u32, features: u32, parameters: u32, key_low: u32, key_high: u32, norm_groups: u32,
        splits: u32, gain1: f32, gain2: f32, epsilon: f32, weight_decay: f32, clip_norm: f32, base_rate: f32,
        warmup_steps: u32, total_steps: u32, decay: u32, validation_rows: u32, validation_capacity: u32,
        shard_first: u32, train_weight: f32, validation_weight: f32, factors: u32, padding: u32,
    }
}

shared! {
    /// Progress through the validation rows; `shaders/training/epoch.wgsl`.
    Validation { rows: u32, first: u32, log_prob_sum: f32, padding: u32 }
}

shared! {
    /// What an epoch did; `shaders/training/epoch.wgsl`.
    Record {
        train_nll: f32, validation_nll: f32, learning_rate: f32, grad_norm: f32, improved: u32, halted: u32,
        epoch: u32, padding: u32,
    }
}

shared! {
    /// Domain of a permutation; `shaders/shared/permutation.wgsl`.
    Permutation {
        n: u32, stream: u32, step: u32, key_low: u32, key_high: u32, padding0: u32, padding1: u32, padding2: u32,
    }
}

/// Most transforms that a flow may have in the fused plan.
pub const MOST_TRANSFORMS: usize = 64;
/// Most linear layers that networks of different shapes may have in the fused plan, all shapes together.
pub const MOST_SPANS: usize = 32;

shared! {
    /// A linear layer in the fused plan; `shaders/fused/layout.wgsl`.
    Span {
        input_quads: u32, output_quads: u32, natural: u32, bias: u32, transposed: u32, activated: u32, skips: u32,
        padding: u32,
    }
}

shared! {
    /// A transform in the fused plan; `shaders/fused/layout.wgsl`.
    FusedTransform {
        kind: u32, roles: u32, weights: u32, slot: u32, saved: u32, networks: u32, spans: u32, depth: u32,
        weights_stride: u32, slot_stride: u32, bound: f32, transformed: u32,
    }
}

shared! {
    /// A flow in the fused plan; `shaders/fused/layout.wgsl`.
    Fused {
        rules: Rules, transform_count: u32, features: u32, modelled: u32, groups: u32, slot_quads: u32, base: u32,
        base_slot: u32, padding: u32, transforms: [FusedTransform; MOST_TRANSFORMS], spans: [Span; MOST_SPANS],
    }
}
