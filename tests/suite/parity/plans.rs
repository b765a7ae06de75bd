//! Both plans as a whole: loss and gradient of flows of every depth against the CPU, on shapes that fill no tile.

use moonflow::cpu::CpuEngine;
use moonflow::engine::Engine;
use moonflow::flow::{Activation, Base, Bijector, ConditionerForm, Flow, Masking, Transform};
use moonflow::gpu::fused::Shape;
use moonflow::gpu::{GpuEngine, PlanKind, Target};
use moonflow::layout::Layout;

use crate::common::{Comparison, from_wide, random_parameters, relative_error, uniform, wide};
use crate::gpu::{context, engine, on_both_plans};

on_both_plans! {
    loss_and_gradient_are_those_of_the_cpu_on_ragged_shapes_of_every_depth
    loss_and_gradient_of_splines_among_other_transforms_are_those_of_the_cpu
    loss_and_gradient_of_conditioners_of_every_form_in_one_flow_are_those_of_the_cpu
    loss_and_gradient_of_mixtures_as_base_density_are_those_of_the_cpu
}

use ConditionerForm::{Joint, Residual, Separate};

/// Features and context, couplings, hidden widths, rows, masking, conditioners.
type Case = ([usize; 2], usize, Vec<usize>, usize, Masking, ConditionerForm);

/// The cases of `plan` among these, the first `fused` of which are the fused plan's. The layered kernels serve every shape;
/// the fused ones are compiled for each, which takes a software adapter seconds, and learn nothing of the others that these
/// and the kernels' own cases do not show.
pub fn cases<T>(plan: PlanKind, fused: usize, mut all: Vec<T>) -> impl Iterator<Item = (usize, T)> {
    if plan == PlanKind::Fused {
        all.truncate(fused);
    }
    all.into_iter().enumerate()
}

/// One to three hidden layers, from one row to several splits or blocks.
fn shapes() -> Vec<Case> {
    vec![
        ([9, 0], 3, vec![17, 33], 130, Masking::Random { seed: 5 }, Separate),
        ([5, 0], 2, vec![3, 128, 20], 67, Masking::HalfSplit, Separate),
        ([37, 0], 2, vec![12], 70, Masking::Alternating, Separate),
        ([1, 1], 2, vec![6], 65, Masking::Alternating, Separate),
        ([2, 0], 2, vec![65, 64], 33, Masking::HalfSplit, Separate),
        ([2, 0], 3, vec![5], 1, Masking::Alternating, Separate),
        ([2, 0], 1, vec![4, 4], 600, Masking::Alternating, Separate),
        ([3, 6], 3, vec![10, 9], 40, Masking::HalfSplit, Separate),
        ([2, 1], 3, vec![9], 7, Masking::Alternating, Residual),
        ([7, 2], 2, vec![33], 40, Masking::Random { seed: 2 }, Joint),
        ([3, 0], 1, vec![1], 7, Masking::Alternating, Separate),
        ([3, 0], 2, vec![12, 12, 12], 65, Masking::Alternating, Residual),
        ([1, 0], 3, vec![9, 5], 33, Masking::HalfSplit, Joint),
        ([3, 0], 2, vec![70], 65, Masking::Alternating, Separate),
        ([2, 0], 2, vec![18, 7], 70, Masking::Alternating, Joint),
        ([4, 0], 2, vec![16, 16], 33, Masking::HalfSplit, Residual),
        ([1, 0], 2, vec![6], 65, Masking::Alternating, Separate),
    ]
}

/// The activation of case `at`. Layered kernels are held to their twins with every one of them. Here they have one, so that
/// those that are compiled for a flow serve others.
pub fn activation(plan: PlanKind, at: usize) -> Activation {
    match plan {
        PlanKind::Layered => Activation::Silu,
        PlanKind::Fused => Activation::ALL[at % Activation::ALL.len()].1,
    }
}

fn loss_and_gradient_are_those_of_the_cpu_on_ragged_shapes_of_every_depth(plan: PlanKind) {
    let mut comparison = Comparison::new(format!("{plan} plan"));
    for (at, ([modelled, context], layers, hidden, rows, masking, form)) in cases(plan, 4, shapes()) {
        let activation = activation(plan, at);
        let flow =
            Flow::conditional(modelled, context, layers, &hidden).expect("valid").with_masking(masking);
        let flow = flow.with_activation(activation).with_conditioner(form);
        let name = format!("{modelled} given {context}, {form:?} {hidden:?}, {rows} rows {activation:?}");
        compare(&mut comparison, &name, plan, &flow, (rows, at as u64, 8.0));
    }
    comparison.finish();
}

fn loss_and_gradient_of_splines_among_other_transforms_are_those_of_the_cpu(plan: PlanKind) {
    let mut comparison = Comparison::new(format!("{plan} plan"));
    let reversal = |modelled| Transform::Permutation { permutation: (0..modelled).rev().collect() };
    let splines = vec![
        ([5, 2], vec![13], Joint, 3, 33),
        ([6, 0], vec![24, 24], Residual, 4, 40),
        ([2, 0], vec![16, 16], Joint, 8, 70),
        ([1, 0], vec![7, 7], Residual, 8, 70),
    ];
    for (at, ([modelled, context], hidden, form, bins, rows)) in cases(plan, 2, splines) {
        let flow = Flow::conditional(modelled, context, 2, &hidden).expect("valid");
        let flow = flow.with_bijector(Bijector::Spline { bins, bound: 3.0 }).with_conditioner(form);
        let flow = flow.with_masking(Masking::HalfSplit).with_activation(Activation::Silu);
        let mut flow = flow.before_each_coupling(&[Transform::Actnorm, reversal(modelled), Transform::Lu]);
        flow.transforms.push(Transform::Lu);
        let name = format!("{modelled} given {context}");
        compare(&mut comparison, &name, plan, &flow, (rows, at as u64, 16.0));
    }
    comparison.finish();
}

fn loss_and_gradient_of_conditioners_of_every_form_in_one_flow_are_those_of_the_cpu(plan: PlanKind) {
    let mut flow = Flow::new(5, 2, &[14, 14]).expect("valid").with_activation(activation(plan, 0));
    for form in [Joint, Residual, Separate] {
        let flow_of_form = flow.clone().with_conditioner(form);
        flow.transforms.extend_from_slice(&flow_of_form.transforms[..2]);
        flow.transforms.push(Transform::Actnorm);
    }
    let mut comparison = Comparison::new(format!("{plan} plan"));
    compare(&mut comparison, "every form", plan, &flow, (41, 3, 16.0));
    comparison.finish();
}

fn loss_and_gradient_of_mixtures_as_base_density_are_those_of_the_cpu(plan: PlanKind) {
    let mut comparison = Comparison::new(format!("{plan} plan"));
    let mixtures = vec![
        ([3, 1], 5, Joint, 33),
        ([9, 0], 3, Residual, 600),
        ([2, 0], 1, Separate, 70),
        ([2, 3], 12, Separate, 7),
    ];
    for (at, ([modelled, context], components, form, rows)) in cases(plan, 1, mixtures) {
        let flow = Flow::conditional(modelled, context, 2, &[12, 12]).expect("valid").with_conditioner(form);
        let flow = flow.with_activation(activation(plan, at));
        let mut flow = flow.with_base(Base::Mixture { components });
        // The base density is behind a coupling, whose bijector the gradient passes through, or behind another transform.
        if at % 2 == 0 {
            flow.transforms.push(Transform::Actnorm);
        }
        let name = format!("{modelled} given {context}, {components} components");
        compare(&mut comparison, &name, plan, &flow, (rows, at as u64, 16.0));
    }
    comparison.finish();
}

/// Loss and gradient of `flow` on so many rows, by `plan` and on the CPU. An error may be so many `times` that of the CPU in
/// single precision.
pub fn compare(
    comparison: &mut Comparison,
    name: &str,
    plan: PlanKind,
    flow: &Flow,
    (rows, seed, times): (usize, u64, f64),
) {
    let parameters = random_parameters(flow, 8 + seed);
    let x = uniform(rows * flow.features, 2.0, seed);
    let Some(mut gpu) = engine(flow, plan) else { return };
    let mut exact = CpuEngine::<f64>::new(flow.clone()).expect("valid");
    let mut single = CpuEngine::<f32>::new(flow.clone()).expect("valid");
    exact.set_parameters(&parameters).expect("fits");
    single.set_parameters(&from_wide::<f32>(&parameters)).expect("fits");
    Engine::set_parameters(&mut gpu, &from_wide::<f32>(&parameters)).expect("fits");

    let (loss, truth) = exact.loss_and_gradient(&x).expect("rows");
    let (_, own) = single.loss_and_gradient(&from_wide::<f32>(&x)).expect("rows");
    let (got_loss, got) = pollster::block_on(gpu.loss_and_gradient(&from_wide::<f32>(&x))).expect("rows");
    comparison.check(&format!("{name} loss"), &[got_loss], &[loss], 1e-5);
    let (got, own) = (wide(&got), wide(&own));
    for tensor in &Layout::new(flow).tensors {
        let [got, want, own] = [&got, &truth, &own].map(|values| &values[tensor.range()]);
        // Both are sums over rows whose parts cancel, each tensor's by chance.
        let own = relative_error(own, want).clamp(2.0 * f64::from(f32::EPSILON), 1e-4);
        comparison.check(&format!("{name} {}", tensor.name), got, want, times * own);
        comparison.check_zeros(&format!("{name} {}", tensor.name), got, want);
    }
}

#[test]
fn the_fused_plan_is_taken_where_it_fits_and_else_refused_with_the_limit() {
    let kind = |hidden: &[usize], target: &Target| {
        PlanKind::choose(&Flow::new(2, 2, hidden).expect("valid"), target)
    };
    let portable = Target::default();
    for hidden in [&[1][..], &[64, 64], &[128, 128], &[128, 128, 128], &[8; 7]] {
        assert_eq!(kind(hidden, &portable), PlanKind::Fused, "{hidden:?}");
    }
    let with = |change: fn(&mut wgpu::Limits)| {
        let mut target = Target::default();
        change(&mut target.limits);
        target
    };
    for (hidden, target, part) in [
        (&[129, 8][..], Target::default(), "129 wide, at most 128"),
        (&[8; 8], Target::default(), "8 hidden layers, at most 7"),
        (&[8], with(|limits| limits.max_storage_buffers_per_shader_stage = 7), "allows 7"),
        (
            &[128, 128],
            with(|limits| limits.max_compute_workgroup_storage_size = 4096),
            "max_compute_workgroup_storage_size",
        ),
    ] {
        assert_eq!(kind(hidden, &target), PlanKind::Layered, "{hidden:?}");
        let flow = Flow::new(2, 2, hidden).expect("valid");
        let message = Shape::training(&flow, &target, 64).expect_err("does not fit").to_string();
        assert!(message.contains(part) && message.contains("the layered plan takes any flow"), "{message}");
    }
    let Some(context) = context() else { return };
    let wide = Flow::new(2, 2, &[129]).expect("valid");
    assert!(GpuEngine::with_plan(wide.clone(), context.clone(), PlanKind::Fused).is_err());
    assert_eq!(GpuEngine::on(wide, context.clone()).expect("valid").plan_kind(), PlanKind::Layered);
}
