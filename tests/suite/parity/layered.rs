//! The layered plan as a whole: loss and gradient of flows of every depth against the CPU, on shapes that fill no tile.

use moonflow::cpu::CpuEngine;
use moonflow::flow::{Activation, Flow, Masking};
use moonflow::layout::Layout;

use crate::common::{Comparison, from_wide, random_parameters, relative_error, uniform, wide};
use crate::gpu::engine;

/// (features, couplings, hidden widths, rows, masking): one to three hidden layers, from one row to several splits.
fn shapes() -> Vec<(usize, usize, Vec<usize>, usize, Masking)> {
    vec![
        (2, 3, vec![5], 1, Masking::Alternating),
        (3, 2, vec![70], 65, Masking::Alternating),
        (9, 3, vec![17, 33], 130, Masking::Random { seed: 5 }),
        (5, 2, vec![3, 66, 20], 67, Masking::HalfSplit),
        (37, 2, vec![12], 70, Masking::Alternating),
        (2, 1, vec![4, 4], 600, Masking::Alternating),
    ]
}

#[test]
fn loss_and_gradient_are_those_of_the_cpu_on_ragged_shapes_of_every_depth() {
    let mut comparison = Comparison::new("layered plan");
    for (at, (features, layers, hidden, rows, masking)) in shapes().into_iter().enumerate() {
        let activation = Activation::ALL[at % Activation::ALL.len()].1;
        let flow = Flow::new(features, layers, &hidden).expect("valid").with_masking(masking);
        let flow = flow.with_activation(activation);
        let parameters = random_parameters(&flow, 8 + at as u64);
        let x = uniform(rows * features, 2.0, at as u64);
        let Some(mut gpu) = engine(&flow) else { return };
        let mut exact = CpuEngine::<f64>::new(flow.clone()).expect("valid");
        let mut single = CpuEngine::<f32>::new(flow.clone()).expect("valid");
        exact.set_parameters(&parameters).expect("fits");
        single.set_parameters(&from_wide::<f32>(&parameters)).expect("fits");
        moonflow::engine::Engine::set_parameters(&mut gpu, &from_wide::<f32>(&parameters)).expect("fits");

        let (loss, truth) = exact.loss_and_gradient(&x).expect("rows");
        let (_, own) = single.loss_and_gradient(&from_wide::<f32>(&x)).expect("rows");
        let (got_loss, got) = pollster::block_on(gpu.loss_and_gradient(&from_wide::<f32>(&x))).expect("rows");
        let name = format!("{features}, {hidden:?}, {rows} rows {activation:?}");
        comparison.check(&format!("{name} loss"), &[got_loss], &[loss], 1e-5);
        let (got, own) = (wide(&got), wide(&own));
        for tensor in &Layout::new(&flow).tensors {
            let [got, want, own] = [&got, &truth, &own].map(|values| &values[tensor.range()]);
            // Both are sums over rows whose parts cancel, each tensor's by chance.
            let own = relative_error(own, want).clamp(2.0 * f64::from(f32::EPSILON), 1e-4);
            comparison.check(&format!("{name} {}", tensor.name), got, want, 8.0 * own);
            comparison.check_zeros(&format!("{name} {}", tensor.name), got, want);
        }
    }
    comparison.finish();
}
