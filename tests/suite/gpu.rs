//! The GPU under test: a device for each test that is under way, and the engine as a subject of laws and oracles.

use std::sync::{Mutex, MutexGuard};

use moonflow::flow::Flow;
use moonflow::gpu::{Context, GpuEngine, PlanKind, adapters};

use crate::common::{Single, Subject, from_wide, wide};

/// Devices that no test has at the moment.
static FREE: Mutex<Vec<&'static Context>> = Mutex::new(Vec::new());

/// A device, for as long as the thread of its test lives.
struct Lent(&'static Context);

impl Drop for Lent {
    fn drop(&mut self) {
        free().push(self.0);
    }
}

fn free() -> MutexGuard<'static, Vec<&'static Context>> {
    FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// This test's device, or `None` where `MOONFLOW_SKIP_GPU_TESTS` asks to do without. Without an adapter tests fail.
///
/// Tests that run at once have a device each: a software one compiles its pipelines one after the other.
pub fn context() -> Option<&'static Context> {
    thread_local! {
        static LENT: Option<Lent> = (!skipped()).then(|| {
            let device = free().pop();
            Lent(device.unwrap_or_else(|| Box::leak(Box::new(open()))))
        });
    }
    LENT.with(|lent| lent.as_ref().map(|lent| lent.0))
}

fn skipped() -> bool {
    let skipped = std::env::var_os("MOONFLOW_SKIP_GPU_TESTS").is_some();
    if skipped {
        println!("skipped on the GPU: MOONFLOW_SKIP_GPU_TESTS is set");
    }
    skipped
}

fn open() -> Context {
    let adapter = pollster::block_on(adapters()).into_iter().next().expect(
        "no GPU adapter was found, and the GPU is what these tests are about: install a driver, or a software one \
         (Debian: apt-get install mesa-vulkan-drivers), or set MOONFLOW_SKIP_GPU_TESTS=1",
    );
    println!("GPU tests run on {}", adapter.info());
    pollster::block_on(adapter.open()).expect("the adapter opens")
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
