//! `moonflow plan` from outside, and the costs that it shows.

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use moonflow::engine::TrainingShape;
use moonflow::flow::{Base, Bijector, ConditionerForm, Flow, Transform};
use moonflow::gpu::Target;
use moonflow::gpu::evaluation::EvaluationPlan;
use moonflow::gpu::fused::Shape;
use moonflow::gpu::kernel::KERNELS;
use moonflow::gpu::plan::{Dispatch, Plan, Program};
use moonflow::gpu::score::ScorePlan;
use moonflow::gpu::tile::Tiling;
use moonflow::gpu::training::TrainingPlan;
use moonflow::layout::Layout;
use moonflow::optimiser::{Adam, Decay, Schedule};

/// Runs `moonflow plan` where no Vulkan driver can be found: exit status, standard output, standard error.
fn plan(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(cargo_bin("moonflow"))
        .arg("plan")
        .args(arguments)
        .env("VK_DRIVER_FILES", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn succeed(arguments: &[&str]) -> String {
    let (status, said, message) = plan(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {message}");
    said
}

#[test]
fn plan_shows_every_program_with_aligned_dispatches_and_totals() {
    let said = succeed(&["--features", "5", "--layers", "3", "--hidden", "16,8", "--rows", "1000"]);
    for program in ["training step", "validation tile", "end of epoch", "log_prob", "inverse", "sample"] {
        let start = format!("\n{program}: ");
        let at = said.find(&start).unwrap_or_else(|| panic!("no {program} in {said}"));
        let table: Vec<&str> = said[at + 1..].lines().take_while(|line| !line.is_empty()).collect();
        let widths: Vec<usize> = table[1..].iter().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{table:#?}");
        assert!(table[1].contains("kernel") && table[1].contains("FLOP/B"), "{}", table[1]);
        assert!(table.last().is_some_and(|line| line.trim_start().starts_with("total")), "{table:#?}");
        assert!(table[0].contains(&format!("{} dispatch", table.len() - 3)), "{}", table[0]);
        assert!(!said.contains("at least"), "no roofline was asked for");
    }
    assert!(said.contains("buffers, ") && said.contains("the largest is"), "{said}");
    assert!(said.contains("\nepoch: 4 × training step, 1 × validation tile, 1 × end of epoch: "), "{said}");
}

#[test]
fn plan_says_where_rows_that_need_several_buffers_make_training_layered() {
    // Of 8 bytes each: 2^24 fill the 128 MiB that every adapter binds.
    let most = 1 << 24;
    let of = |rows: u32| succeed(&["--rows", &rows.to_string(), "--layers", "2", "--hidden", "8"]);
    let (whole, cut) = (of(most), of(most + (1 << 23)));
    assert!(whole.contains("\nplan    fused\n") && whole.contains("fused_gradient"), "{whole}");
    assert!(cut.contains("\nplan    fused; training is layered, because"), "{cut}");
    assert!(!cut.contains("fused_gradient") && cut.contains("fused_forward"), "{cut}");
    assert_eq!(cut.matches("rows of the batch").count(), 2, "a dispatch for each buffer: {cut}");
}

#[test]
fn plan_says_where_wide_layers_and_large_batches_make_training_layered_unless_a_plan_is_asked_for() {
    let of = |batch: &str, more: &[&str]| {
        let flags = ["--layers", "2", "--hidden", "128,128", "--batch", batch];
        succeed(&[&flags, more].concat())
    };
    let large = of("8192", &[]);
    assert!(large.contains("\nplan    fused; training is layered, which is faster"), "{large}");
    assert!(!large.contains("fused_gradient") && large.contains("fused_forward"), "{large}");
    for said in [of("8191", &[]), of("8192", &["--plan", "fused"])] {
        assert!(said.contains("\nplan    fused\n") && said.contains("fused_gradient"), "{said}");
    }
}

#[test]
fn plan_takes_the_flags_of_a_recipe() {
    let said = succeed(&["--preset", "seed", "--activation", "silu", "--batch", "100", "--rows", "250"]);
    for part in ["4 couplings, 64×64 silu networks", "batch 100", "training on 250 rows", "3 × training step"]
    {
        assert!(said.contains(part), "`{part}` is not in {said}");
    }
}

#[test]
fn schedule_flags_change_the_recipe() {
    let said = succeed(&["--decay", "constant", "--warmup", "3"]);
    assert!(said.contains("constant at 0.003 after 3 epochs of warm-up"), "{said}");
    let said = succeed(&["--preset", "seed", "--decay", "cosine", "--warmup", "1"]);
    assert!(said.contains("cosine from 0.001 after 1 epoch of warm-up"), "{said}");
}

#[test]
fn a_roofline_adds_times_that_grow_with_the_dispatch_cost() {
    let device = ["--flops", "1e12", "--bandwidth", "1e11"];
    let said = succeed(&device);
    let costly = succeed(&[&device[..], &["--dispatch-cost", "1000"]].concat());
    let headline = |said: &str| {
        let line = said.lines().find(|line| line.starts_with("training step: ")).expect("a step").to_owned();
        let (head, time) = line.split_once(", at least ").expect("a time");
        let count: f64 = head.split_whitespace().nth(2).expect("count").parse().expect("a number");
        let (number, unit) = time.split_once(' ').expect("a unit");
        let unit = HashMap::from([("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)])[unit];
        (count, number.parse::<f64>().expect("a number") * unit)
    };
    let ((count, free), (_, paid)) = (headline(&said), headline(&costly));
    assert!(free > 0.0 && (paid - free - count * 1e-3).abs() < 1e-2 * paid, "{count}: {free} s, {paid} s");
}

#[test]
fn wrong_plans_name_the_rule_and_end_with_status_2() {
    for (arguments, wanted) in [
        (&["--features", "1"][..], &["--features", "2..=65536"][..]),
        (&["--rows", "0"], &["--rows", "2..=100000000"]),
        (&["--layers", "0"], &["--layers", "1..=1024"]),
        (&["--batch", "-1"], &["--batch", "1..=1048576"]),
        (&["--hidden", "64,x"], &["--hidden", "whole numbers from 1 to 65536"]),
        (&["--activation", "gelu"], &["gelu", "relu", "silu"]),
        (&["--flops", "0", "--bandwidth", "1"], &["--flops", "finite number above 0"]),
        (&["--flops", "1e12", "--bandwidth", "inf"], &["--bandwidth", "finite number above 0"]),
        (&["--flops", "1e12"], &["--bandwidth"]),
        (&["--bandwidth", "1e12"], &["--flops"]),
        (&["--dispatch-cost", "3"], &["--flops"]),
        (&["--flops", "1", "--bandwidth", "1", "--dispatch-cost", "-1"], &["--dispatch-cost", "at least 0"]),
    ] {
        let (status, said, message) = plan(arguments);
        assert_eq!((status, said.as_str()), (Some(2), ""), "{arguments:?}: {message}");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in wanted {
            assert!(message.contains(part), "{arguments:?}: `{part}` is not in {message}");
        }
    }
}

const BATCH: usize = 96;

fn flow() -> Flow {
    Flow::new(3, 2, &[16, 8]).expect("valid")
}

fn shape() -> TrainingShape {
    TrainingShape {
        train_rows: 200,
        validation_rows: 50,
        batch: BATCH,
        adam: Adam::default(),
        schedule: Schedule { decay: Decay::Constant, base: 1e-3, warmup_steps: 0, total_steps: 10 },
        seed: 0,
        weights: None,
    }
}

fn training() -> TrainingPlan {
    TrainingPlan::new(&flow(), &Layout::new(&flow()), &shape())
}

fn dispatches<'a>(program: &'a Program, kernel: &'a str) -> impl Iterator<Item = &'a Dispatch> {
    program.dispatches.iter().filter(move |dispatch| dispatch.kernel.name == kernel)
}

fn program<'a>(plan: &'a Plan, name: &str) -> &'a Program {
    plan.programs.iter().find(|program| program.name == name).expect("a program of this name")
}

/// Weights in use of both networks, by layer, over all couplings: first and last layers leave masked ones out.
fn weights() -> [usize; 3] {
    let flow = flow();
    let mut weights = [0; 3];
    for coupling in flow.couplings() {
        let kept = coupling.mask.iter().filter(|kept| **kept).count();
        for (sum, count) in weights.iter_mut().zip([kept * 16, 16 * 8, 8 * (3 - kept)]) {
            *sum += 2 * count;
        }
    }
    weights
}

#[test]
fn matrix_products_cost_two_operations_for_each_weight_in_use_and_row() {
    let [first, hidden, last] = weights();
    let training = training().plan;
    let step = program(&training, "training step");
    let flops =
        |program: &Program, kernel: &str| dispatches(program, kernel).map(|d| d.flops).sum::<u64>() as usize;
    let transformed = last / 2 / 8;
    assert_eq!(flops(step, "linear_forward"), 2 * BATCH * (first + hidden));
    assert_eq!(flops(step, "coupling_forward"), 2 * BATCH * last + 15 * BATCH * transformed);
    assert_eq!(flops(step, "linear_backward"), 4 * BATCH * (hidden + last));
    // Nothing below the first coupling, which keeps two features, asks for the gradient at its input.
    let lowest = 2 * 2 * 16;
    // The second one passes its gradient through what the first one transformed.
    let passed = 20 * BATCH;
    assert_eq!(flops(step, "first_layer_backward"), 2 * BATCH * (2 * first - lowest) + passed);

    let evaluation = EvaluationPlan::new(&flow(), &Layout::new(&flow()), 64).plan;
    for (name, kernel) in
        [("log_prob", "coupling_forward"), ("inverse", "coupling_inverse"), ("sample", "coupling_inverse")]
    {
        let program = program(&evaluation, name);
        assert_eq!(flops(program, "linear_forward"), 2 * 64 * (first + hidden), "{name}");
        assert_eq!(flops(program, kernel), 2 * 64 * last + 15 * 64 * transformed, "{name}");
    }
}

/// A training plan of `layers` couplings over 5 features.
fn deep(layers: usize, hidden: &[usize]) -> TrainingPlan {
    let flow = Flow::new(5, layers, hidden).expect("valid");
    TrainingPlan::new(&flow, &Layout::new(&flow), &shape())
}

#[test]
fn a_coupling_takes_two_dispatches_for_each_layer_and_a_step_few_others() {
    for (hidden, most) in [(&[16][..], 4), (&[16, 8], 6), (&[16, 8, 24], 8)] {
        for layers in [1, 4] {
            let count = |layers| program(&deep(layers, hidden).plan, "training step").dispatches.len();
            assert_eq!(count(2 * layers) - count(layers), most * layers, "{layers} couplings of {hidden:?}");
            assert_eq!(count(layers), most * layers + 5);
        }
    }
}

#[test]
fn a_coupling_with_one_network_takes_two_dispatches_more() {
    for (form, hidden, most) in [
        (ConditionerForm::Joint, &[16][..], 6),
        (ConditionerForm::Joint, &[16, 8], 8),
        (ConditionerForm::Residual, &[16], 10),
        (ConditionerForm::Residual, &[16, 16], 14),
    ] {
        for layers in [1, 4] {
            let flow = Flow::new(5, layers, hidden).expect("valid").with_conditioner(form);
            let plan = TrainingPlan::new(&flow, &Layout::new(&flow), &shape()).plan;
            let count = program(&plan, "training step").dispatches.len();
            assert_eq!(count, most * layers + 5, "{layers} couplings of {form:?} {hidden:?}");
            let evaluation = EvaluationPlan::new(&flow, &Layout::new(&flow), 64).plan;
            assert_eq!(program(&evaluation, "log_prob").dispatches.len(), most / 2 * layers + 1);
            every_dispatch_fits(&[&plan, &evaluation]);
        }
    }
}

fn reversal(features: usize) -> Transform {
    Transform::Permutation { permutation: (0..features).rev().collect() }
}

#[test]
fn other_transforms_take_few_dispatches() {
    let plain = Flow::new(5, 3, &[16]).expect("valid");
    let counts = |flow: &Flow| {
        let layout = Layout::new(flow);
        let training = TrainingPlan::new(flow, &layout, &shape()).plan;
        let evaluation = EvaluationPlan::new(flow, &layout, 64).plan;
        every_dispatch_fits(&[&training, &evaluation]);
        let count = |plan: &Plan, name| program(plan, name).dispatches.len();
        [count(&training, "training step"), count(&evaluation, "log_prob"), count(&evaluation, "inverse")]
    };
    let before = counts(&plain);
    for (transform, each) in
        [(Transform::Actnorm, [2, 1, 1]), (Transform::Lu, [4, 2, 1]), (reversal(5), [2, 1, 1])]
    {
        // Nothing asks for the gradient before the first transform, which is all that a permutation's backward pass makes.
        let unasked = usize::from(matches!(transform, Transform::Permutation { .. }));
        let after = counts(&plain.clone().before_each_coupling(std::slice::from_ref(&transform)));
        let want: Vec<usize> = before.iter().zip(each).map(|(before, each)| before + 3 * each).collect();
        assert_eq!(after[0] + unasked, want[0], "{transform:?}");
        assert_eq!(after[1..], want[1..], "{transform:?}");
    }
}

#[test]
fn row_weights_take_a_dispatch_more_and_the_score_function_none_of_an_update() {
    let weighted = TrainingShape { weights: Some([9.0, 2.0]), ..shape() };
    let (plain, joint) = (flow(), flow().with_conditioner(ConditionerForm::Joint));
    for flow in [plain.clone(), joint, plain.before_each_coupling(&[Transform::Actnorm, Transform::Lu])] {
        let layout = Layout::new(&flow);
        let step = |shape| TrainingPlan::new(&flow, &layout, shape).plan;
        let (even, weighted) = (step(&shape()), step(&weighted));
        let step = |plan| program(plan, "training step").dispatches.len();
        assert_eq!(step(&weighted), step(&even) + 1);
        let score = ScorePlan::tiled(&flow, &layout, 64, &Tiling::default()).plan;
        // A step gathers rows, sums partial gradients, advances and updates.
        assert_eq!(program(&score, "score").dispatches.len(), step(&even) - 4);
        every_dispatch_fits(&[&weighted, &score]);
    }
}

#[test]
fn one_network_costs_two_operations_for_each_weight_in_use_and_row() {
    let (bins, hidden) = (4, 16);
    let numbers = 3 * bins - 1;
    let spline = Bijector::Spline { bins, bound: 3.0 };
    for (form, depth) in [(ConditionerForm::Joint, 2), (ConditionerForm::Residual, 3)] {
        let flow = Flow::new(3, 1, &[hidden]).expect("valid").with_conditioner(form).with_bijector(spline);
        let training = TrainingPlan::new(&flow, &Layout::new(&flow), &shape()).plan;
        let step = program(&training, "training step");
        // Two features are kept and one is transformed.
        let (first, last) = (2 * hidden, hidden * numbers);
        let inner = (depth - 1) * hidden * hidden * usize::from(form == ConditionerForm::Residual);
        let flops = |kernel| dispatches(step, kernel).map(|d| d.flops).sum::<u64>() as usize;
        // A skip connection adds a value of each row to the result, and to the gradient.
        let added = if depth > 2 { BATCH * hidden } else { 0 };
        assert_eq!(flops("linear_forward"), 2 * BATCH * (first + inner + last) + added, "{form:?}");
        assert_eq!(flops("linear_backward"), 4 * BATCH * (inner + last) + added, "{form:?}");
        assert_eq!(flops("first_layer_backward"), 2 * BATCH * first, "{form:?}");
        let theta = dispatches(step, "elementwise_backward").next().expect("a dispatch").bytes as usize;
        // d_z and d_x, x, θ and its gradient.
        assert_eq!(theta, 4 * BATCH * (3 + 2 * numbers), "{form:?}");
    }
}

#[test]
fn more_couplings_need_memory_for_parameters_stored_inputs_and_activations_alone() {
    let hidden = [16, 8];
    for layers in [1, 3, 8] {
        let more = deep(2 * layers, &hidden).plan.bytes() - deep(layers, &hidden).plan.bytes();
        let parameters = Layout::new(&Flow::new(5, layers, &hidden).expect("valid")).total;
        // Parameters, gradient, two moments, best, and one split of partial gradients.
        let parameters = 6 * parameters;
        // Both networks' pre-activations, each coupling's input and its raw log-scale; the order of its features.
        let stored = layers * (BATCH * (2 * (16 + 8) + 2 * 5) + 2 * 5);
        // One sum of squares for each workgroup of sum_partials, whatever is stored otherwise.
        let norms = |plan: &TrainingPlan| {
            plan.plan.buffers.iter().find(|buffer| buffer.label == "norms").expect("norms").bytes
        };
        let norms = norms(&deep(2 * layers, &hidden)) - norms(&deep(layers, &hidden));
        assert_eq!(more, 4 * (parameters + stored) as u64 + norms, "{layers} couplings");
    }
}

#[test]
fn copies_cost_bytes_and_no_operations() {
    let training = training().plan;
    for (name, kernel, words) in [
        ("training step", "gather", 2 * BATCH * 3),
        ("validation tile", "take", 2 * 50 * 3),
        ("end of epoch", "keep_best", 2 * Layout::new(&flow()).total),
    ] {
        let dispatch = dispatches(program(&training, name), kernel).next().expect("a dispatch");
        assert_eq!((dispatch.flops, dispatch.bytes), (0, 4 * words as u64), "{kernel}");
    }
}

#[test]
fn every_dispatch_says_what_it_is_for_and_fits_its_buffers() {
    let training = training().plan;
    let evaluation = EvaluationPlan::new(&flow(), &Layout::new(&flow()), 64).plan;
    every_dispatch_fits(&[&training, &evaluation]);
}

fn every_dispatch_fits(plans: &[&Plan]) {
    for plan in plans {
        for dispatch in plan.programs.iter().flat_map(|program| &program.dispatches) {
            assert!(!dispatch.label.is_empty(), "{}", dispatch.kernel.name);
            // Each buffer is at most read once and written once.
            let bound: u64 = dispatch.buffers.iter().map(|buffer| plan.buffers[buffer.0].bytes).sum();
            assert!(
                dispatch.bytes > 0 && dispatch.bytes <= 2 * bound,
                "{} ({}): {} of {bound} bytes",
                dispatch.kernel.name,
                dispatch.label,
                dispatch.bytes
            );
        }
    }
}

/// Both fused plans, of training and of evaluation.
fn fused(flow: Flow, weights: Option<[f32; 2]>) -> [Plan; 2] {
    let target = Target::default();
    let layout = Layout::new(&flow);
    let step = Shape::training(&flow, &target, BATCH).expect("fits");
    let block = Shape::evaluation(&flow, &target).expect("fits");
    let training =
        TrainingPlan::fused(&flow, &layout, &TrainingShape { weights, ..shape() }, [&step, &block]).plan;
    [training, EvaluationPlan::fused(&flow, &layout, 64, &block).plan]
}

#[test]
fn the_fused_plan_takes_three_dispatches_a_step_and_one_for_each_evaluation() {
    let splines = Flow::new(3, 2, &[16, 16]).expect("valid").with_conditioner(ConditionerForm::Residual);
    let splines = splines.with_bijector(Bijector::Spline { bins: 8, bound: 3.0 });
    let splines = splines.before_each_coupling(&[Transform::Actnorm, reversal(3), Transform::Lu]);
    for (flow, weights) in [(flow(), None), (flow(), Some([9.0, 2.0])), (splines, Some([9.0, 2.0]))] {
        let [training, evaluation] = fused(flow, weights);
        for (plan, name, most) in [
            (&training, "training step", 3),
            (&training, "validation tile", 2),
            (&training, "end of epoch", 2),
            (&evaluation, "log_prob", 1),
            (&evaluation, "inverse", 1),
            (&evaluation, "sample", 1),
        ] {
            assert_eq!(program(plan, name).dispatches.len(), most, "{name}");
        }
        every_dispatch_fits(&[&training, &evaluation]);
    }
}

#[test]
fn a_mixture_as_base_density_takes_two_dispatches_more_in_a_step_and_none_in_the_fused_plan() {
    let mixture = |flow: &Flow| flow.clone().with_base(Base::Mixture { components: 4 });
    for plain in [flow(), flow().before_each_coupling(&[Transform::Lu])] {
        let count = |flow: &Flow| {
            let layout = Layout::new(flow);
            let training = TrainingPlan::new(flow, &layout, &shape()).plan;
            let evaluation = EvaluationPlan::new(flow, &layout, 64).plan;
            let score = ScorePlan::tiled(flow, &layout, 64, &Tiling::default()).plan;
            every_dispatch_fits(&[&training, &evaluation, &score]);
            let programs = training.programs.iter().chain(&evaluation.programs).chain(&score.programs);
            programs.map(|program| (program.name, program.dispatches.len())).collect::<HashMap<_, _>>()
        };
        let (before, after) = (count(&plain), count(&mixture(&plain)));
        for (name, added) in [
            ("training step", 2),
            ("validation tile", 1),
            ("end of epoch", 0),
            ("log_prob", 1),
            ("inverse", 0),
            ("sample", 0),
            ("score", 2),
        ] {
            assert_eq!(after[name], before[name] + added, "{name}");
        }
        let [training, evaluation] = fused(mixture(&plain), Some([9.0, 2.0]));
        assert_eq!(program(&training, "training step").dispatches.len(), 3);
        assert_eq!(program(&evaluation, "sample").dispatches.len(), 1);
        every_dispatch_fits(&[&training, &evaluation]);
    }
}

#[test]
fn a_mixture_costs_three_operations_for_each_entry_in_use_and_row_to_whiten() {
    let flow = flow().with_base(Base::Mixture { components: 4 });
    let training = TrainingPlan::new(&flow, &Layout::new(&flow), &shape()).plan;
    let step = program(&training, "training step");
    let of = |kernel| dispatches(step, kernel).next().expect("a dispatch");
    // Four triangles of three features, and their twelve numbers.
    let (entries, numbers) = (4 * 6, 4 * 3);
    let whiten = of("mixture_whiten");
    assert_eq!(whiten.flops as usize, BATCH * (3 * entries + 10 * numbers));
    assert_eq!(whiten.bytes as usize, 4 * (BATCH * (3 + numbers) + entries + numbers));
    let backward = of("mixture_backward").flops as usize;
    // Rows and entries, and then the coupling before, which transforms two features.
    assert_eq!(backward, BATCH * (3 * entries + 4 * entries + 2 * numbers + 3 * 4 + 20 * 2));
}

#[test]
fn every_kernel_but_the_permutation_by_itself_is_dispatched_by_a_plan() {
    let flows = [
        flow().with_base(Base::Mixture { components: 2 }),
        flow().before_each_coupling(&[Transform::Actnorm, reversal(3), Transform::Lu]),
        flow().with_conditioner(ConditionerForm::Joint),
    ];
    let layered = flows.iter().flat_map(|flow| {
        let layout = Layout::new(flow);
        [TrainingPlan::new(flow, &layout, &shape()).plan, EvaluationPlan::new(flow, &layout, 64).plan]
    });
    let weighted = TrainingShape { weights: Some([9.0, 2.0]), ..shape() };
    let weighted = TrainingPlan::new(&flows[1], &Layout::new(&flows[1]), &weighted).plan;
    let plans = layered.chain([weighted]).chain(fused(flow(), None));
    let dispatched: BTreeSet<&str> = plans
        .flat_map(|plan| plan.programs)
        .flat_map(|program| program.dispatches)
        .map(|dispatch| dispatch.kernel.name)
        .collect();
    let idle: Vec<&str> =
        KERNELS.iter().map(|kernel| kernel.name).filter(|name| !dispatched.contains(name)).collect();
    // `gather` and `fused_gradient` have the permutation inside; as a kernel it is there to be tested.
    assert_eq!(idle, ["permutation"], "kernels that no plan dispatches");
}

#[test]
fn activations_of_the_fused_plan_take_no_more_memory_for_more_couplings() {
    let trail = |layers| {
        let flow = Flow::new(3, layers, &[64, 64]).expect("valid");
        let target = Target::default();
        let blocks = Shape::training(&flow, &target, BATCH).expect("fits");
        let block = Shape::evaluation(&flow, &target).expect("fits");
        let plan = TrainingPlan::fused(&flow, &Layout::new(&flow), &shape(), [&blocks, &block]).plan;
        let bytes = plan
            .buffers
            .iter()
            .find(|buffer| buffer.label == "saved for the backward pass")
            .expect("saved")
            .bytes;
        (blocks.workgroup_bytes(), bytes)
    };
    let ((tiles, short), (more_tiles, long)) = (trail(1), trail(50));
    assert_eq!(tiles, more_tiles);
    // Two rows of features padded to four for each coupling, and nothing as wide as a hidden layer.
    assert_eq!((short, long), (4 * (2 * BATCH * 4) as u64, 50 * short));
}

#[test]
fn plan_says_which_plan_it_is_and_forces_either() {
    for (arguments, plan) in [
        (&["--hidden", "64,64"][..], "fused"),
        (&["--hidden", "64,64", "--plan", "layered"], "layered"),
        (&["--hidden", "200"], "layered"),
        (&["--hidden", "64", "--plan", "fused"], "fused"),
    ] {
        let said = succeed(arguments);
        assert!(said.contains(&format!("\nplan    {plan}\n")), "{arguments:?}: {said}");
    }
    let (status, _, message) = self::plan(&["--hidden", "200", "--plan", "fused"]);
    assert_eq!(status, Some(1));
    for part in ["200 wide", "128", "--plan layered"] {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
}
