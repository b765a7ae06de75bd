//! A plan: the buffers and dispatches of a computation as plain data, made without a device.
//! The executor replays it and adds nothing, so what a plan prints is what the GPU does.

use std::fmt;

use super::kernel::{Constant, Kernel};
use crate::error::{Error, Remedy, Result};

/// The two ways in which the GPU engine executes a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// One dispatch for each layer of each coupling: any width.
    Layered,
    /// One dispatch for the whole flow, and three for a training step: networks that fit a workgroup.
    Fused,
}

impl fmt::Display for PlanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Layered => "layered",
            Self::Fused => "fused",
        })
    }
}

/// Index of a buffer in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(pub usize);

/// A storage buffer that a plan asks for; it starts as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferSpec {
    /// What it holds.
    pub label: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The entry point.
    pub kernel: &'static Kernel,
    /// Which coupling and layer it serves.
    pub label: String,
    /// Constants with which the kernel is compiled, where they are not its defaults.
    pub constants: Vec<Constant>,
    /// Bytes of its uniform struct.
    pub uniform: Vec<u8>,
    /// Buffers, in the order of the kernel's storage bindings.
    pub buffers: Vec<BufferId>,
    /// Workgroups in x, y and z.
    pub workgroups: [u32; 3],
    /// Floating-point operations, for full buffers.
    pub flops: u64,
    /// Bytes that must at least be moved to and from memory.
    pub bytes: u64,
}

/// Index of a program in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramId(pub usize);

/// Dispatches that run in order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// What it computes.
    pub name: &'static str,
    /// Its dispatches.
    pub dispatches: Vec<Dispatch>,
}

impl Program {
    /// An empty program.
    pub fn new(name: &'static str) -> Self {
        Self { name, dispatches: Vec::new() }
    }

    /// Floating-point operations of all dispatches.
    pub fn flops(&self) -> u64 {
        self.dispatches.iter().map(|dispatch| dispatch.flops).sum()
    }

    /// Bytes moved by all dispatches.
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(|dispatch| dispatch.bytes).sum()
    }
}

/// Buffers and programs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every buffer.
    pub buffers: Vec<BufferSpec>,
    /// What buffers hold from the start, where it is not zeros.
    pub contents: Vec<(BufferId, Vec<u8>)>,
    /// Every program.
    pub programs: Vec<Program>,
}

impl Plan {
    /// Adds a buffer of `count` 32-bit values.
    pub fn buffer(&mut self, label: impl Into<String>, count: usize) -> BufferId {
        self.buffers.push(BufferSpec { label: label.into(), bytes: 4 * count.max(4) as u64 });
        BufferId(self.buffers.len() - 1)
    }

    /// Adds a buffer that holds `values` from the start.
    pub fn constant<T: bytemuck::Pod>(&mut self, label: impl Into<String>, values: &[T]) -> BufferId {
        let bytes = bytemuck::cast_slice(values).to_vec();
        let id = self.buffer(label, bytes.len().div_ceil(4));
        self.contents.push((id, bytes));
        id
    }

    /// Adds a program.
    pub fn program(&mut self, program: Program) -> ProgramId {
        self.programs.push(program);
        ProgramId(self.programs.len() - 1)
    }

    /// `dispatch`, one of this plan's or like one, with the buffers that it binds and what they hold, as a plan of its
    /// own; and the buffer of this plan that each of its own stands for.
    pub fn alone(&self, dispatch: &Dispatch) -> (Self, Vec<BufferId>) {
        let mut bound: Vec<BufferId> = Vec::new();
        for buffer in &dispatch.buffers {
            if !bound.contains(buffer) {
                bound.push(*buffer);
            }
        }
        let place = |of: &BufferId| bound.iter().position(|buffer| buffer == of).map(BufferId);
        let contents = self.contents.iter().filter_map(|(id, bytes)| Some((place(id)?, bytes.clone())));
        let mut alone = Self {
            buffers: bound.iter().map(|buffer| self.buffers[buffer.0].clone()).collect(),
            contents: contents.collect(),
            programs: Vec::new(),
        };
        let buffers = dispatch.buffers.iter().filter_map(place).collect();
        let dispatches = vec![Dispatch { buffers, ..dispatch.clone() }];
        alone.program(Program { name: dispatch.kernel.name, dispatches });
        (alone, bound)
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.bytes).sum()
    }

    /// Checks that an adapter can hold and run the plan.
    ///
    /// # Errors
    /// [`Error::Device`] names the limit, what is needed and what there is.
    pub fn check(&self, limits: &wgpu::Limits) -> Result<()> {
        for (name, most) in [
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_buffer_size", limits.max_buffer_size),
        ] {
            if let Some(buffer) = self.buffers.iter().find(|buffer| buffer.bytes > most) {
                let error = Error::Device(format!(
                    "buffer '{}' needs {} bytes, but the adapter allows at most {most} ({name})",
                    buffer.label, buffer.bytes
                ));
                return Err(error.advise(Remedy::SmallerBatchOrCpu));
            }
        }
        let most = limits.max_compute_workgroups_per_dimension;
        for dispatch in self.programs.iter().flat_map(|program| &program.dispatches) {
            if let Some(groups) = dispatch.workgroups.iter().find(|&&groups| groups > most) {
                let error = Error::Device(format!(
                    "{} ({}) needs {groups} workgroups in a dimension, but the adapter runs at most {most} \
                     (max_compute_workgroups_per_dimension)",
                    dispatch.kernel.name, dispatch.label
                ));
                return Err(error.advise(Remedy::SmallerBatchOrCpu));
            }
        }
        Ok(())
    }
}

/// Stands for the place of a parameter that has no copy, because nothing reads it.
pub const NOWHERE: u32 = u32::MAX;

/// Where copies of the parameters lie in a buffer that has them in another order, beside zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// Values in the buffer.
    pub len: usize,
    /// Places of both copies of each parameter, which are one where there is a single copy; or [`NOWHERE`].
    pub places: Vec<[u32; 2]>,
}

impl Copies {
    /// What the buffer holds for `parameters` `[P]`.
    pub fn pack(&self, parameters: &[f32]) -> Vec<f32> {
        let mut packed = vec![0.0; self.len];
        for (&value, places) in parameters.iter().zip(&self.places) {
            for &place in places.iter().filter(|&&place| place != NOWHERE) {
                packed[place as usize] = value;
            }
        }
        packed
    }
}

/// `count` workgroups, over two dimensions where one would not do.
pub fn grid(count: usize) -> [u32; 3] {
    let count = count.max(1);
    let x = count.min(32_768);
    [x as u32, count.div_ceil(x) as u32, 1]
}

/// Workgroups of 256 threads for `count` elements.
pub fn groups_of_256(count: usize) -> [u32; 3] {
    grid(count.div_ceil(256))
}

/// Workgroups that copy so many rows of `features`; `shaders/training/batch.wgsl`.
pub fn copy_groups(rows: usize, features: usize) -> [u32; 3] {
    grid(rows.div_ceil((256 / features).max(8)))
}

/// Threads that share a row of `features`: the next power of two, at most 32.
pub fn lanes(features: usize) -> u32 {
    features.next_power_of_two().min(32) as u32
}
