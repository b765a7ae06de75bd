//! Runs one kernel on buffers of the test's choice and compares every word that comes back: those that the kernel
//! has to write with what its CPU twin says, all others with what they were before.
//!
//! A [`Call`] is one dispatch with its buffers. What a kernel must not read is poisoned with a NaN, and so is what
//! it must write before it does. A [`Case`] is a kernel with its calls and its [`Case::changes`]: deliberate
//! mistakes in the shader's text, each of which the same comparison has to find.

use bytemuck::Pod;
use moonflow::cpu::Real;
use moonflow::gpu::Context;
use moonflow::gpu::executor::Executor;
use moonflow::gpu::kernel::{Access, Binding, Constant, Kernel};
use moonflow::gpu::plan::{BufferId, Dispatch, Plan, Program};

use crate::common::{Comparison, largest, relative_error, uniform, wide};
use crate::gpu::context;

/// Stands in cells that must not be read, must be written, or must stay as they are. On the device it is a NaN where
/// the kernel only reads, and [`UNWRITTEN`] where it writes: so it shows when one is carried into the other.
pub const POISON: u32 = 0x7FC0_DEAD;
/// 6.2e18: a NaN would hide an update in place, because NaNs keep their bits in arithmetic.
const UNWRITTEN: u32 = 0x5EAD_BEEF;

/// What the words of an output should be.
enum Want {
    /// These bits.
    Bits(Vec<u32>),
    /// Anything at all.
    Anything,
    /// Within a tolerance of `truth`, computed in double precision; `single` is the CPU twin's in single precision. Errors are
    /// relative to the largest value, or to `least_scale` where that is more.
    Real { truth: Vec<f64>, single: Vec<f64>, least_scale: f64 },
}

/// Some words of an output that belong together.
struct Region {
    name: String,
    places: Vec<usize>,
    want: Want,
}

struct Buffer {
    binding: &'static str,
    words: Vec<u32>,
    /// What the kernel writes; empty for buffers that are only read.
    regions: Vec<Region>,
}

/// One dispatch of a kernel, its buffers and what they should hold afterwards.
pub struct Call {
    label: String,
    uniform: Vec<u8>,
    workgroups: [u32; 3],
    constants: Vec<Constant>,
    buffers: Vec<Buffer>,
    enlarged: f64,
}

impl Call {
    /// A dispatch without buffers yet; `label` names its sizes in messages.
    pub fn new(label: impl Into<String>, uniform: &impl Pod, workgroups: [u32; 3]) -> Self {
        let uniform = bytemuck::bytes_of(uniform).to_vec();
        let (constants, buffers) = (Vec::new(), Vec::new());
        Self { label: label.into(), uniform, workgroups, constants, buffers, enlarged: 1.0 }
    }

    /// Lets the CPU twin's own error in single precision count for so many times as much, where roundings are enlarged on
    /// the way.
    pub fn enlarging(mut self, times: f64) -> Self {
        self.enlarged = times;
        self
    }

    /// Gives the kernel's constants these values.
    pub fn constants(mut self, constants: &[Constant]) -> Self {
        self.constants = constants.into();
        self
    }

    /// Binds a buffer with these words, in the place of one that was bound before.
    pub fn bind(mut self, binding: &'static str, words: Vec<u32>) -> Self {
        self.buffers.retain(|buffer| buffer.binding != binding);
        self.buffers.push(Buffer { binding, words, regions: Vec::new() });
        self
    }

    /// Binds a buffer that holds `values` at its start and poison up to `len`.
    pub fn values(self, binding: &'static str, values: &[f32], len: usize) -> Self {
        self.bind(binding, poisoned(values, len))
    }

    /// Binds a buffer that holds a struct.
    pub fn record(self, binding: &'static str, record: &impl Pod) -> Self {
        self.bind(binding, words(record))
    }

    fn region(mut self, name: &str, places: Vec<usize>, want: Want) -> Self {
        let buffer = self.buffers.last_mut().expect("an output is described after its buffer");
        let name = if name.is_empty() { buffer.binding.into() } else { format!("{}.{name}", buffer.binding) };
        buffer.regions.push(Region { name, places, want });
        self
    }

    /// The buffer bound last must hold these numbers at `places`: `truth` in double precision, within a tolerance
    /// that depends on how far `single`, the same computation in single precision, is off.
    pub fn expect(
        self,
        name: &str,
        places: impl IntoIterator<Item = usize>,
        truth: Vec<f64>,
        single: &[f32],
    ) -> Self {
        self.expect_scaled(name, places, truth, single, 0.0)
    }

    /// [`Call::expect`] of logarithms: the error of one is the relative error of what it is of, however small it is itself.
    pub fn expect_logarithms(
        self,
        name: &str,
        places: impl IntoIterator<Item = usize>,
        truth: Vec<f64>,
        single: &[f32],
    ) -> Self {
        self.expect_scaled(name, places, truth, single, 1.0)
    }

    fn expect_scaled(
        self,
        name: &str,
        places: impl IntoIterator<Item = usize>,
        truth: Vec<f64>,
        single: &[f32],
        least_scale: f64,
    ) -> Self {
        let places: Vec<usize> = places.into_iter().collect();
        assert_eq!((places.len(), places.len()), (truth.len(), single.len()), "{}: {name}", self.label);
        self.region(name, places, Want::Real { truth, single: wide(single), least_scale })
    }

    /// The buffer bound last must hold exactly these words at `places`.
    pub fn expect_bits(self, name: &str, places: impl IntoIterator<Item = usize>, bits: Vec<u32>) -> Self {
        let places: Vec<usize> = places.into_iter().collect();
        assert_eq!(places.len(), bits.len(), "{}: {name}", self.label);
        self.region(name, places, Want::Bits(bits))
    }

    /// The buffer bound last may hold anything at `places`.
    pub fn unchecked(self, places: impl IntoIterator<Item = usize>) -> Self {
        self.region("", places.into_iter().collect(), Want::Anything)
    }

    fn buffer(&self, binding: &str) -> &Buffer {
        let found = self.buffers.iter().find(|buffer| buffer.binding == binding);
        found.unwrap_or_else(|| panic!("{}: nothing is bound to {binding}", self.label))
    }

    /// What the buffer of `binding` holds before the kernel runs.
    fn contents(&self, binding: &Binding) -> Vec<u32> {
        let mut words = self.buffer(binding.name).words.clone();
        if binding.access == Access::ReadWrite {
            words.iter_mut().filter(|word| **word == POISON).for_each(|word| *word = UNWRITTEN);
        }
        words
    }

    /// Compares every word of every writable buffer of `kernel`; `got` holds their words, in order.
    fn check(&self, kernel: &Kernel, got: &[Vec<u32>], factor: f64, comparison: &mut Comparison) {
        for (binding, got) in outputs(kernel).zip(got) {
            let buffer = self.buffer(binding.name);
            let mut outside = vec![true; got.len()];
            for Region { name, places, want } in &buffer.regions {
                let name = format!("{} {name}", self.label);
                let words = places.iter().map(|&place| got[place]);
                match want {
                    Want::Anything => {}
                    Want::Bits(want) => {
                        let got: Vec<f64> = words.map(f64::from).collect();
                        let want: Vec<f64> = want.iter().copied().map(f64::from).collect();
                        comparison.check(&name, &got, &want, 0.0);
                    }
                    Want::Real { truth, single, least_scale } => {
                        let got: Vec<f64> = words.map(|word| f64::from(f32::from_bits(word))).collect();
                        // How much larger the scale of errors is than the largest value.
                        let scale = (least_scale / largest(truth).max(f64::MIN_POSITIVE)).max(1.0);
                        let own = relative_error(single, truth) / scale;
                        let epsilon = f64::from(f32::EPSILON);
                        let tolerance = scale * factor * own.clamp(epsilon, 8.0 * self.enlarged * epsilon);
                        comparison.check(&format!("{name} (cpu {own:.1e})"), &got, truth, tolerance);
                    }
                }
                for &place in places {
                    assert!(std::mem::take(&mut outside[place]), "{name}: [{place}] is described twice");
                }
            }
            let pick = |words: &[u32]| -> Vec<f64> {
                let kept = words.iter().zip(&outside).filter(|(_, outside)| **outside);
                kept.map(|(&word, _)| f64::from(word)).collect()
            };
            let name = format!("{} {} elsewhere", self.label, buffer.binding);
            comparison.check(&name, &pick(got), &pick(&self.contents(binding)), 0.0);
        }
    }
}

/// A kernel with the calls that hold it to its CPU twin.
pub struct Case {
    /// The entry point.
    pub kernel: &'static Kernel,
    /// The error of the GPU, relative to the largest value of each output, may be this multiple of the CPU twin's in
    /// single precision; of which never less than the precision itself counts, and never more than 8 times that, or than
    /// [`Call::enlarging`] says.
    pub factor: f64,
    /// Ragged sizes and every mode.
    pub calls: Vec<Call>,
    /// Deliberate mistakes: a text that occurs once in the shader, or in that of one of its bijectors, and what takes its
    /// place.
    pub changes: &'static [(&'static str, &'static str)],
}

impl Case {
    /// Runs all calls and fails with everything that differs.
    pub fn finish(&self) {
        let Some(context) = context() else { return };
        self.compare(context, self.kernel, &self.calls).finish();
    }

    /// Runs the calls with each change of the shader in turn, and fails when the comparison does not notice it.
    pub fn every_change_is_found(&self) {
        let Some(context) = context() else { return };
        assert!(!self.changes.is_empty(), "{}: no changed twin", self.kernel.name);
        // Calls of one pipeline at a time: to compile it takes longer than to run it. Those that found a change come first
        // for the next one, which is often of the same part of the shader.
        let groups: Vec<&[Call]> =
            self.calls.chunk_by(|one, other| one.constants == other.constants).collect();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        let source = |calls: &&[Call]| self.kernel.filled(&calls[0].constants).join("\n");
        let sources: Vec<String> = groups.iter().map(source).collect();
        // Those that are not tried are to be found too.
        let lost: Vec<_> =
            self.changes.iter().filter(|(from, _)| !sources.iter().any(|text| text.contains(from))).collect();
        assert!(lost.is_empty(), "{}: what these change must occur: {lost:#?}", self.kernel.name);
        let mut unseen = Vec::new();
        for (from, to) in self.tried(&sources) {
            let seen = order.iter().position(|&group| {
                let Some(kernel) = changed(self.kernel, &groups[group][0].constants, from, to) else {
                    return false;
                };
                let mut parts = groups[group].chunks(12);
                parts.any(|calls| !self.compare(context, kernel, calls).failures().is_empty())
            });
            match seen {
                Some(place) => order[..=place].rotate_right(1),
                None => unseen.push((from, to)),
            }
        }
        assert!(unseen.is_empty(), "{}: no call notices {unseen:#?}", self.kernel.name);
    }

    /// The changes that are tried: of a kernel with many, as many as compile in half a minute, evenly spread; or all, or
    /// those of a text, where the environment asks for them. Where they begin depends on the text, so that a shader that is
    /// worked on meets others.
    fn tried(&self, sources: &[String]) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        /// Most changes that are tried unasked: of a kernel, and of one that takes rows through a whole flow, which takes a
        /// software driver seconds to compile, for several flows until one notices.
        const MOST: usize = 3;
        const MOST_OF_A_FLOW: usize = 1;

        let asked = std::env::var("MOONFLOW_CHANGES").ok();
        let through_flow = self.kernel.constants.iter().any(|(name, _)| *name == "TEAMS");
        let most = if through_flow { MOST_OF_A_FLOW } else { MOST };
        let stride = if asked.is_some() { 1 } else { self.changes.len().div_ceil(most) };
        let part = asked.filter(|asked| asked != "all").unwrap_or_default();
        let first = crc32fast::hash(sources.concat().as_bytes()) as usize % stride;
        let tried = self.changes.iter().skip(first).step_by(stride);
        tried.filter(move |(from, _)| from.contains(&part))
    }

    /// Compares `calls`, which run together: a device costs more for each wait than for each call.
    fn compare(&self, context: &Context, kernel: &'static Kernel, calls: &[Call]) -> Comparison {
        let mut got = run(context, kernel, calls).into_iter();
        let mut comparison = Comparison::new(kernel.name);
        for call in calls {
            let got: Vec<_> = got.by_ref().take(outputs(kernel).count()).collect();
            call.check(kernel, &got, self.factor, &mut comparison);
        }
        comparison
    }
}

/// The bindings that a kernel writes.
fn outputs(kernel: &Kernel) -> impl Iterator<Item = &Binding> {
    kernel.bindings.iter().filter(|binding| binding.access == Access::ReadWrite)
}

/// Runs `kernel` as every one of `calls`, each on buffers of its own, and hands back the words of every writable
/// buffer: of the first call in the order of bindings, then of the second, and so on.
pub fn run(context: &Context, kernel: &'static Kernel, calls: &[Call]) -> Vec<Vec<u32>> {
    let storage = || kernel.bindings.iter().filter(|binding| binding.access != Access::Uniform);
    let mut plan = Plan::default();
    let mut program = Program::new(kernel.name);
    let (mut contents, mut results) = (Vec::new(), Vec::new());
    for call in calls {
        let first = plan.buffers.len();
        for binding in storage() {
            let words = call.contents(binding);
            let id = plan.buffer(binding.name, words.len());
            if binding.access == Access::ReadWrite {
                results.push((id, words.len()));
            }
            contents.push((id, words));
        }
        program.dispatches.push(Dispatch {
            kernel,
            constants: call.constants.clone(),
            label: call.label.clone(),
            uniform: call.uniform.clone(),
            buffers: (first..plan.buffers.len()).map(BufferId).collect(),
            workgroups: call.workgroups,
            flops: 0,
            bytes: 0,
        });
    }
    let program = plan.program(program);
    let executor = Executor::new(context, &plan).expect("a plan within limits");
    for (id, words) in contents {
        executor.write(id, &words);
    }
    executor.submit([program]);
    pollster::block_on(executor.read_each(&results)).expect("a healthy device")
}

/// A copy of `kernel` in whose text, for these constants, `to` stands for the only `from`; `None` where there is none.
fn changed(kernel: &Kernel, constants: &[Constant], from: &str, to: &str) -> Option<&'static Kernel> {
    let source = kernel.filled(constants).join("\n");
    let count = source.matches(from).count();
    assert!(count < 2, "{}: '{from}' must occur once", kernel.name);
    (count == 1).then(|| with_texts(kernel, vec![source.replace(from, to)]))
}

/// A copy of `kernel` made of other texts. It lives as long as the tests.
pub fn with_texts(kernel: &Kernel, texts: Vec<String>) -> &'static Kernel {
    let texts = texts.into_iter().map(|text| &*text.leak()).collect::<Vec<&'static str>>();
    let Kernel { name, bindings, constants, .. } = *kernel;
    Box::leak(Box::new(Kernel { name, texts: texts.leak(), bindings, constants }))
}

/// The words of a struct.
pub fn words(record: &impl Pod) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytemuck::bytes_of(record))
}

/// The bits of numbers.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of `values`, then poison up to `len` words.
pub fn poisoned(values: &[f32], len: usize) -> Vec<u32> {
    assert!(values.len() <= len, "{} values do not fit {len}", values.len());
    let mut words = bits(values);
    words.resize(len, POISON);
    words
}

/// `count` single-precision numbers uniform in ±`limit`, the same for the same `seed`.
pub fn random(count: usize, limit: f64, seed: u64) -> Vec<f32> {
    uniform(count, limit, seed).into_iter().map(|value| value as f32).collect()
}

/// The same numbers in precision `R`.
pub fn real<R: Real>(values: &[f32]) -> Vec<R> {
    values.iter().map(|&value| R::from_wide(value.into())).collect()
}
