//! Every WGSL entry point against its CPU twin, and the whole GPU engine against the CPU engine.
//!
//! `cargo test --test suite parity -- --nocapture` prints the error of each output beside its tolerance.

mod actnorm;
mod adam;
mod batch;
mod coupling;
mod density;
mod elementwise;
mod epoch;
mod evaluation;
mod fused;
mod harness;
mod latent;
mod layer;
mod layered;
mod linear;
mod lu;
mod mixture;
mod permutation;
mod plan;
mod plans;
mod reduce;
mod reorder;
mod timing;
mod training;
mod weigh;

use std::collections::BTreeSet;

use moonflow::gpu::kernel::KERNELS;

/// One module of tests per entry point, and the list of them all.
macro_rules! cases {
    ($($file:ident: $($name:ident)*;)*) => {
        mod kernels {
            $($(mod $name {
                use crate::parity::$file::$name as case;

                #[test]
                fn equals_its_cpu_twin() {
                    let case = case();
                    assert_eq!(case.kernel.name, stringify!($name));
                    case.finish();
                }

                #[test]
                fn every_change_of_the_shader_is_found() {
                    case().every_change_is_found();
                }
            })*)*
        }

        /// Names of the cases, which are those of their kernels.
        const CASES: &[&str] = &[$($(stringify!($name),)*)*];
    };
}

cases! {
    linear: linear_forward linear_backward;
    coupling: coupling_forward coupling_inverse first_layer_backward;
    elementwise: elementwise_forward elementwise_inverse elementwise_backward;
    actnorm: actnorm_forward actnorm_inverse actnorm_backward;
    lu: lu_forward lu_inverse lu_backward;
    reorder: reorder reorder_backward;
    weigh: weigh;
    density: log_density log_determinant log_density_backward;
    mixture: mixture_whiten mixture_density mixture_responsibilities mixture_backward mixture_noise;
    batch: gather take;
    reduce: sum_partials;
    adam: advance adam;
    epoch: accumulate close_epoch keep_best;
    latent: latent_noise;
    permutation: permutation;
    fused: fused_forward fused_inverse fused_sample fused_gradient fused_sum fused_adam;
}

#[test]
fn every_entry_point_has_a_case_of_its_name() {
    let cases: BTreeSet<&str> = CASES.iter().copied().collect();
    let kernels: BTreeSet<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
    assert_eq!(cases, kernels);
}
