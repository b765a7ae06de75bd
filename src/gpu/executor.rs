//! Holds a plan's buffers and bind groups on a device and replays its programs.

use bytemuck::Pod;
use futures_channel::oneshot;

use super::adapter::{Context, Pipeline};
use super::kernel::Access;
use super::pace::clock;
use super::plan::{BufferId, Plan, ProgramId};
use crate::error::{Error, Remedy, Result};

struct Recorded {
    pipeline: Pipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
    uniform_offset: u64,
}

/// A plan on a device.
pub struct Executor {
    context: Context,
    buffers: Vec<wgpu::Buffer>,
    uniforms: wgpu::Buffer,
    programs: Vec<Vec<Recorded>>,
}

impl Executor {
    /// Allocates the plan's buffers with what they hold from the start, and binds them to its kernels, which are compiled
    /// when they are first run.
    ///
    /// # Errors
    /// [`Error::Device`] when a limit is too small or memory runs out.
    pub fn new(context: &Context, plan: &Plan) -> Result<Self> {
        plan.check(&context.limits())?;
        let device = &context.device;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffers: Vec<_> = plan
            .buffers
            .iter()
            .map(|spec| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(&spec.label),
                    size: spec.bytes,
                    usage,
                    mapped_at_creation: false,
                })
            })
            .collect();
        for (BufferId(index), bytes) in &plan.contents {
            context.queue.write_buffer(&buffers[*index], 0, bytes);
        }
        context.health()?;

        let align = u64::from(context.limits().min_uniform_buffer_offset_alignment).max(16);
        let mut uniform_bytes = Vec::new();
        let mut offsets = Vec::new();
        for dispatch in plan.programs.iter().flat_map(|program| &program.dispatches) {
            uniform_bytes.resize((uniform_bytes.len() as u64).next_multiple_of(align) as usize, 0);
            offsets.push(uniform_bytes.len() as u64);
            uniform_bytes.extend(&dispatch.uniform);
        }
        uniform_bytes.resize(uniform_bytes.len().next_multiple_of(16).max(16), 0);
        let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("uniforms"),
            size: uniform_bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        context.queue.write_buffer(&uniforms, 0, &uniform_bytes);

        let mut offsets = offsets.into_iter();
        let mut programs = Vec::new();
        for program in &plan.programs {
            let mut recorded = Vec::new();
            for dispatch in &program.dispatches {
                let pipeline = context.pipeline(dispatch.kernel, &dispatch.constants);
                let uniform_offset = offsets.next().expect("invariant: one offset for each dispatch");
                let mut bound = dispatch.buffers.iter();
                let entries: Vec<_> = dispatch
                    .kernel
                    .bindings
                    .iter()
                    .map(|binding| wgpu::BindGroupEntry {
                        binding: binding.number,
                        resource: if binding.access == Access::Uniform {
                            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                                buffer: &uniforms,
                                offset: uniform_offset,
                                size: wgpu::BufferSize::new(dispatch.uniform.len() as u64),
                            })
                        } else {
                            let BufferId(index) =
                                bound.next().expect("invariant: a dispatch names a buffer for each binding");
                            buffers[*index].as_entire_binding()
                        },
                    })
                    .collect();
                let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(dispatch.kernel.name),
                    layout: &pipeline.layout,
                    entries: &entries,
                });
                recorded.push(Recorded {
                    pipeline,
                    bind_group,
                    workgroups: dispatch.workgroups,
                    uniform_offset,
                });
            }
            programs.push(recorded);
        }
        context.health()?;
        Ok(Self { context: context.clone(), buffers, uniforms, programs })
    }

    /// The device it runs on.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Overwrites the start of a buffer; takes effect before whatever is submitted next.
    pub fn write<T: Pod>(&self, buffer: BufferId, values: &[T]) {
        self.write_at(buffer, 0, values);
    }

    /// Overwrites a buffer from byte `offset` on; takes effect before whatever is submitted next.
    pub fn write_at<T: Pod>(&self, BufferId(index): BufferId, offset: usize, values: &[T]) {
        if !values.is_empty() {
            let bytes = bytemuck::cast_slice(values);
            self.context.queue.write_buffer(&self.buffers[index], offset as u64, bytes);
        }
    }

    /// Overwrites the uniform of a program's dispatch number `dispatch`.
    pub fn write_uniform<T: Pod>(&self, ProgramId(program): ProgramId, dispatch: usize, uniform: &T) {
        let offset = self.programs[program][dispatch].uniform_offset;
        self.context.queue.write_buffer(&self.uniforms, offset, bytemuck::bytes_of(uniform));
    }

    /// Submits `programs` in order, as one compute pass.
    pub fn submit(&self, programs: impl IntoIterator<Item = ProgramId>) -> Submission {
        self.submit_reading(programs, &[]).0
    }

    /// [`Executor::submit`], after which the first so many bytes of each buffer are read in the same submission:
    /// [`Executor::collect`] waits for them.
    pub fn submit_reading(
        &self,
        programs: impl IntoIterator<Item = ProgramId>,
        wanted: &[(BufferId, usize)],
    ) -> (Submission, Reading) {
        let mut encoder =
            self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut programs = programs.into_iter().peekable();
        if programs.peek().is_some() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for program in programs {
                for dispatch in 0..self.dispatches(program) {
                    self.record(&mut pass, program, dispatch);
                }
            }
        }
        let wanted: Vec<_> =
            wanted.iter().map(|&(BufferId(index), bytes)| (&self.buffers[index], bytes as u64)).collect();
        self.submit_copying(encoder, &wanted)
    }

    /// Number of dispatches of a program.
    pub(super) fn dispatches(&self, ProgramId(program): ProgramId) -> usize {
        self.programs[program].len()
    }

    /// Records a program's dispatch number `dispatch`.
    pub(super) fn record(
        &self,
        pass: &mut wgpu::ComputePass,
        ProgramId(program): ProgramId,
        dispatch: usize,
    ) {
        let recorded = &self.programs[program][dispatch];
        let [x, y, z] = recorded.workgroups;
        pass.set_pipeline(self.context.compile(&recorded.pipeline));
        pass.set_bind_group(0, &recorded.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Submits what `encoder` holds and copies of the first so many bytes of each buffer.
    pub(super) fn submit_copying(
        &self,
        mut encoder: wgpu::CommandEncoder,
        wanted: &[(&wgpu::Buffer, u64)],
    ) -> (Submission, Reading) {
        // Mapped ranges begin at multiples of 8 and copies have sizes that are multiples of 4.
        let mut spans = Vec::with_capacity(wanted.len());
        let mut total = 0;
        for &(_, bytes) in wanted {
            spans.push((total, bytes));
            total += bytes.next_multiple_of(16);
        }
        let staging = (!wanted.is_empty()).then(|| {
            self.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("staging"),
                size: total.max(16),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        if let Some(staging) = &staging {
            for (&(buffer, _), &(start, size)) in wanted.iter().zip(&spans) {
                encoder.copy_buffer_to_buffer(buffer, 0, staging, start, size);
            }
        }
        let submitted = clock();
        let index = self.context.queue.submit([encoder.finish()]);
        let (sender, done) = oneshot::channel();
        self.context.queue.on_submitted_work_done(move || {
            // The receiver may be gone when this submission is not waited for.
            let _ = sender.send(clock());
        });
        let (sender, mapped) = oneshot::channel();
        if let Some(staging) = &staging {
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let _ = sender.send(result);
            });
        }
        (Submission { index: index.clone(), submitted, done }, Reading { index, staging, spans, mapped })
    }

    /// Waits until a submission is done; when it was submitted and when it was done, by [`clock`].
    ///
    /// # Errors
    /// [`Error::Device`] when the device is lost.
    pub async fn wait(&self, submission: Submission) -> Result<[f64; 2]> {
        self.poll(submission.index)?;
        let done = submission.done.await.map_err(|_| self.lost())?;
        self.context.health()?;
        Ok([submission.submitted, done])
    }

    /// Reads the first `count` values of each buffer, after all that was submitted before.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is lost or anything submitted was rejected.
    pub async fn read<T: Pod, const N: usize>(&self, wanted: [(BufferId, usize); N]) -> Result<[Vec<T>; N]> {
        let mut read = self.read_each(&wanted).await?.into_iter();
        Ok(wanted.map(|_| read.next().expect("invariant: as many results as buffers")))
    }

    /// [`Executor::read`] of any number of buffers, with one wait for all of them.
    ///
    /// # Errors
    /// As [`Executor::read`].
    pub async fn read_each<T: Pod>(&self, wanted: &[(BufferId, usize)]) -> Result<Vec<Vec<T>>> {
        let bytes: Vec<_> = wanted.iter().map(|&(buffer, count)| (buffer, count * size_of::<T>())).collect();
        self.collect(self.submit_reading([], &bytes).1).await
    }

    /// Waits for what a submission read, and for no later one.
    ///
    /// # Errors
    /// As [`Executor::read`].
    pub async fn collect<T: Pod>(&self, reading: Reading) -> Result<Vec<Vec<T>>> {
        let Reading { index, staging: Some(staging), spans, mapped } = reading else { return Ok(Vec::new()) };
        self.poll(index)?;
        let result = mapped.await.map_err(|_| self.lost())?;
        self.context.health()?;
        result.map_err(|error| {
            Error::Device(format!("{}: reading back failed: {error}", self.context.info()))
        })?;
        let view = staging.get_mapped_range(..).map_err(|error| {
            Error::Device(format!("{}: reading back failed: {error}", self.context.info()))
        })?;
        let values = |&(start, size): &(u64, u64)| {
            bytemuck::pod_collect_to_vec(&view[start as usize..(start + size) as usize])
        };
        Ok(spans.iter().map(values).collect())
    }

    /// Lets native backends make progress; browsers do so by themselves.
    fn poll(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        match self.context.device.poll(wait) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.context.health()?;
                Err(Error::Device(format!("{}: waiting failed: {error}", self.context.info())))
            }
        }
    }

    fn lost(&self) -> Error {
        match self.context.health() {
            Err(error) => error,
            Ok(()) => {
                let error = Error::Device(format!("{}: the device stopped answering", self.context.info()));
                error.advise(Remedy::Cpu)
            }
        }
    }
}

/// Work in flight.
pub struct Submission {
    index: wgpu::SubmissionIndex,
    submitted: f64,
    done: oneshot::Receiver<f64>,
}

/// Buffers being read.
pub struct Reading {
    index: wgpu::SubmissionIndex,
    /// `None` where nothing is.
    staging: Option<wgpu::Buffer>,
    /// Start and length of each in bytes.
    spans: Vec<(u64, u64)>,
    mapped: oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}
