//! The GPU under test: one device for all tests, and the engine as a subject of laws and oracles.

use std::sync::OnceLock;

use moonflow::flow::Flow;
use moonflow::gpu::{Context, GpuEngine, PlanKind, adapters};

use crate::common::{Single, Subject, from_wide, wide};

/// The device, or `None` where `MOONFLOW_SKIP_GPU_TESTS` asks to do without. Without an adapter tests fail.
pub fn context() -> Option<&'static Context> {
    static CONTEXT: OnceLock<Option<Context>> = OnceLock::new();
    CONTEXT
        .get_or_init(|| {
            if std::env::var_os("MOONFLOW_SKIP_GPU_TESTS").is_some() {
                println!("skipped on the GPU: MOONFLOW_SKIP_GPU_TESTS is set");
                return None;
            }
            let adapter = pollster::block_on(adapters()).into_iter().next().expect(
                "no GPU adapter was found, and the GPU is what these tests are about: install a driver, or a \
                 software one (Debian: apt-get install mesa-vulkan-drivers), or set MOONFLOW_SKIP_GPU_TESTS=1",
            );
            println!("GPU tests run on {}", adapter.info());
            Some(pollster::block_on(adapter.open()).expect("the adapter opens"))
        })
        .as_ref()
}

/// An engine that executes `flow` by `plan` on the device under test.
pub fn engine(flow: &Flow, plan: PlanKind) -> Option<GpuEngine> {
    context().map(|context| {
        GpuEngine::with_plan(flow.clone(), context.clone(), plan).expect("a flow that fits the plan")
    })
}

/// Makes tests of functions that take a plan: one test for each plan.
macro_rules! on_both_plans {
    ($($name:ident)*) => {
        mod layered {
            $(#[test]
            fn $name() {
                super::$name(moonflow::gpu::PlanKind::Layered);
            })*
        }

        mod fused {
            $(#[test]
            fn $name() {
                super::$name(moonflow::gpu::PlanKind::Fused);
            })*
        }
    };
}
pub(crate) use on_both_plans;

/// The GPU engine, which also shows its gradient.
pub struct Gpu(Single<GpuEngine>);

impl Gpu {
    pub fn subject(flow: &Flow, parameters: &[f64], plan: PlanKind) -> Option<Box<dyn Subject>> {
        let name = match plan {
            PlanKind::Layered => "gpu layered",
            PlanKind::Fused => "gpu fused",
        };
        Some(Box::new(Self(Single::new(name, engine(flow, plan)?, parameters))))
    }
}

impl Subject for Gpu {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn epsilon(&self) -> f64 {
        self.0.epsilon()
    }

    fn forward(&mut self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        self.0.forward(x)
    }

    fn inverse(&mut self, z: &[f64]) -> (Vec<f64>, Vec<f64>) {
        self.0.inverse(z)
    }

    fn log_prob(&mut self, x: &[f64]) -> Vec<f64> {
        self.0.log_prob(x)
    }

    fn gradient(&mut self, x: &[f64]) -> Option<Vec<f64>> {
        let gradient = pollster::block_on(self.0.engine.loss_and_gradient(&from_wide::<f32>(x)));
        Some(wide(&gradient.expect("whole rows").1))
    }

    fn adam(&mut self, x: &[f64], steps: u32) -> (Vec<f64>, Vec<f64>) {
        self.0.adam(x, steps)
    }
}
