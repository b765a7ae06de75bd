//! A plan: the buffers and dispatches of a computation as plain data, made without a device.
//! The executor replays it and adds nothing, so what a plan prints is what the GPU does.

use super::kernel::{Constant, Kernel};
use super::uniforms;
use crate::error::{Error, Result};
use crate::flow::{Flow, Network};
use crate::layout::Layout;

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
    /// Values of the kernel's constants; those left out have their defaults.
    pub constants: Vec<Constant>,
    /// Which coupling and layer it serves.
    pub label: String,
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
                return Err(Error::Device(format!(
                    "buffer '{}' needs {} bytes, but the adapter allows at most {most} ({name}); take a smaller \
                     --batch or model, or --device cpu, which has no such limit",
                    buffer.label, buffer.bytes
                )));
            }
        }
        let most = limits.max_compute_workgroups_per_dimension;
        for dispatch in self.programs.iter().flat_map(|program| &program.dispatches) {
            if let Some(groups) = dispatch.workgroups.iter().find(|&&groups| groups > most) {
                return Err(Error::Device(format!(
                    "{} ({}) needs {groups} workgroups in a dimension, but the adapter runs at most {most} \
                     (max_compute_workgroups_per_dimension); take a smaller --batch or model, or --device cpu",
                    dispatch.kernel.name, dispatch.label
                )));
            }
        }
        Ok(())
    }
}

/// Workgroups of 256 threads for `count` elements, over two dimensions where one would not do.
pub fn groups_of_256(count: usize) -> [u32; 3] {
    let groups = count.div_ceil(256).max(1);
    let x = groups.min(32_768);
    [x as u32, groups.div_ceil(x) as u32, 1]
}

/// Threads that share a row of `features`: the next power of two, at most 32.
pub fn lanes(features: usize) -> u32 {
    features.next_power_of_two().min(32) as u32
}

/// Edge of a tile of a matrix product, as in `shaders/tile.wgsl`.
const TILE: usize = 64;

/// Buffers through which a flow is computed, `capacity` rows at a time.
pub(super) struct FlowBuffers {
    pub capacity: usize,
    pub extent: BufferId,
    pub parameters: BufferId,
    pub masks: BufferId,
    pub log_det: BufferId,
}

/// Appends a flow's dispatches to programs: the layered plan's building blocks.
pub(super) struct Recorder<'a> {
    pub flow: &'a Flow,
    pub layout: &'a Layout,
    pub shared: FlowBuffers,
}

impl Recorder<'_> {
    /// Masks as 0 and 1, [L, D].
    pub fn masks(flow: &Flow) -> Vec<f32> {
        flow.masks.iter().flatten().map(|&kept| f32::from(u8::from(kept))).collect()
    }

    /// Allocates the pre-activations of one coupling, one buffer [2, capacity, width] a linear layer.
    pub fn pre_activations(&self, plan: &mut Plan, label: &str) -> Vec<BufferId> {
        (0..self.layout.depth())
            .map(|layer| {
                let width = self.layout.linear(0, Network::Scale, layer).outputs;
                plan.buffer(format!("{label}.{layer}"), 2 * self.shared.capacity * width)
            })
            .collect()
    }

    fn linear(&self, transform: usize, layer: usize, rows_per_split: usize) -> uniforms::Linear {
        let span = self.layout.linear(transform, Network::Scale, layer);
        let first = layer == 0;
        uniforms::Linear {
            inputs: span.inputs as u32,
            outputs: span.outputs as u32,
            weight: span.weight as u32,
            bias: span.bias as u32,
            network_stride: self.layout.network_stride as u32,
            source_stride: if first { 0 } else { (self.shared.capacity * span.inputs) as u32 },
            capacity: self.shared.capacity as u32,
            activation: self.flow.activation.code(),
            masked: u32::from(first),
            mask: (transform * self.flow.features) as u32,
            rows_per_split: rows_per_split as u32,
            parameters: self.layout.total as u32,
        }
    }

    /// (FLOPs, bytes) of one product of a layer's two networks over all rows.
    fn linear_cost(&self, uniform: &uniforms::Linear) -> (u64, u64) {
        let (rows, inputs, outputs) =
            (self.shared.capacity as u64, u64::from(uniform.inputs), u64::from(uniform.outputs));
        let planes = if uniform.masked == 1 { 1 } else { 2 };
        (
            4 * rows * inputs * outputs,
            4 * (planes * rows * inputs + 2 * rows * outputs + 2 * inputs * outputs),
        )
    }

    /// Both networks of coupling `transform`, from its input rows to raw log-scale and shift.
    pub fn conditioner_forward(
        &self,
        program: &mut Program,
        transform: usize,
        source: BufferId,
        pre: &[BufferId],
    ) {
        let mut source = source;
        for (layer, &destination) in pre.iter().enumerate() {
            let uniform = self.linear(transform, layer, 0);
            let (flops, bytes) = self.linear_cost(&uniform);
            let shared = &self.shared;
            program.dispatches.push(Dispatch {
                kernel: &super::kernel::LINEAR_FORWARD,
                constants: Vec::new(),
                label: format!("transforms.{transform} layer {layer}"),
                uniform: bytemuck::bytes_of(&uniform).to_vec(),
                buffers: vec![shared.extent, shared.parameters, source, shared.masks, destination],
                workgroups: [
                    (uniform.outputs as usize).div_ceil(TILE) as u32,
                    shared.capacity.div_ceil(TILE) as u32,
                    2,
                ],
                flops,
                bytes,
            });
            source = destination;
        }
    }

    /// Gradients of both networks of coupling `transform`. `d_pre` holds d_raw in its last buffer; partial weight
    /// gradients go to `partials`, and d_input, unless it is `None`, receives [2, capacity, D].
    #[expect(clippy::too_many_arguments, reason = "a backward pass names each of its buffers")]
    pub fn conditioner_backward(
        &self,
        program: &mut Program,
        transform: usize,
        source: BufferId,
        pre: &[BufferId],
        d_pre: &[BufferId],
        partials: BufferId,
        d_input: Option<BufferId>,
        splits: usize,
    ) {
        let shared = &self.shared;
        let rows_per_split = shared.capacity.div_ceil(splits);
        for layer in (0..pre.len()).rev() {
            let uniform = self.linear(transform, layer, rows_per_split);
            let (flops, bytes) = self.linear_cost(&uniform);
            let layer_source = if layer == 0 { source } else { pre[layer - 1] };
            let (inputs, outputs) = (uniform.inputs as usize, uniform.outputs as usize);
            // Two planes of d_source go out; two of source come in for its slope, or none where it is masked.
            let source_bytes = if layer == 0 { 4 } else { 8 } * (shared.capacity * inputs) as u64;
            let label = format!("transforms.{transform} layer {layer}");
            let uniform = bytemuck::bytes_of(&uniform).to_vec();
            program.dispatches.push(Dispatch {
                kernel: &super::kernel::LINEAR_BACKWARD_WEIGHT,
                constants: Vec::new(),
                label: label.clone(),
                uniform: uniform.clone(),
                buffers: vec![shared.extent, layer_source, shared.masks, d_pre[layer], partials],
                workgroups: [inputs.div_ceil(TILE) as u32, outputs.div_ceil(TILE) as u32, 2 * splits as u32],
                flops,
                bytes: bytes + 8 * (splits as u64 - 1) * (inputs * outputs) as u64,
            });
            let destination = if layer == 0 { d_input } else { Some(d_pre[layer - 1]) };
            if let Some(destination) = destination {
                program.dispatches.push(Dispatch {
                    kernel: &super::kernel::LINEAR_BACKWARD_INPUT,
                    constants: Vec::new(),
                    label,
                    uniform,
                    buffers: vec![
                        shared.extent,
                        shared.parameters,
                        layer_source,
                        shared.masks,
                        d_pre[layer],
                        destination,
                    ],
                    workgroups: [inputs.div_ceil(TILE) as u32, shared.capacity.div_ceil(TILE) as u32, 2],
                    flops,
                    bytes: bytes + source_bytes,
                });
            }
        }
    }

    fn coupling(&self, transform: usize, first: bool) -> uniforms::Coupling {
        uniforms::Coupling {
            features: self.flow.features as u32,
            mask: (transform * self.flow.features) as u32,
            capacity: self.shared.capacity as u32,
            lanes: lanes(self.flow.features),
            bound: self.flow.bound,
            first: u32::from(first),
            last: u32::from(transform + 1 == self.flow.layers()),
            padding: 0,
        }
    }

    /// Workgroups of a kernel in which [`lanes`] threads share a row.
    pub fn row_groups(&self) -> [u32; 3] {
        [(self.shared.capacity * lanes(self.flow.features) as usize).div_ceil(256) as u32, 1, 1]
    }

    /// Coupling `transform` by `kernel`, forward or inverse; `first` starts log_det at zero.
    pub fn transform(
        &self,
        program: &mut Program,
        kernel: &'static Kernel,
        transform: usize,
        first: bool,
        raw: BufferId,
        [source, destination]: [BufferId; 2],
    ) {
        let elements = (self.shared.capacity * self.flow.features) as u64;
        let shared = &self.shared;
        program.dispatches.push(Dispatch {
            kernel,
            constants: Vec::new(),
            label: format!("transforms.{transform}"),
            uniform: bytemuck::bytes_of(&self.coupling(transform, first)).to_vec(),
            buffers: vec![shared.extent, shared.masks, raw, source, destination, shared.log_det],
            workgroups: self.row_groups(),
            flops: 15 * elements,
            bytes: 16 * elements,
        });
    }

    /// Gradient of coupling `transform`; `carried` is d_z and becomes d_x in place.
    pub fn transform_backward(
        &self,
        program: &mut Program,
        transform: usize,
        raw: BufferId,
        output: BufferId,
        carried: BufferId,
        [d_network, d_raw]: [BufferId; 2],
    ) {
        let elements = self.shared.capacity * self.flow.features;
        let shared = &self.shared;
        program.dispatches.push(Dispatch {
            kernel: &super::kernel::COUPLING_BACKWARD,
            constants: Vec::new(),
            label: format!("transforms.{transform}"),
            uniform: bytemuck::bytes_of(&self.coupling(transform, false)).to_vec(),
            buffers: vec![shared.extent, shared.masks, raw, output, carried, d_network, d_raw],
            workgroups: groups_of_256(elements),
            flops: 20 * elements as u64,
            bytes: 32 * elements as u64,
        });
    }

    /// log p of every row from latent rows and log_det.
    pub fn log_density(&self, program: &mut Program, latent: BufferId, log_prob: BufferId) {
        let features = self.flow.features;
        let uniform =
            uniforms::Density { features: features as u32, lanes: lanes(features), ..Default::default() };
        let shared = &self.shared;
        program.dispatches.push(Dispatch {
            kernel: &super::kernel::LOG_DENSITY,
            constants: Vec::new(),
            label: "base density".into(),
            uniform: bytemuck::bytes_of(&uniform).to_vec(),
            buffers: vec![shared.extent, latent, shared.log_det, log_prob],
            workgroups: self.row_groups(),
            flops: (2 * shared.capacity * features) as u64,
            bytes: (4 * shared.capacity * (features + 2)) as u64,
        });
    }

    /// The whole forward pass between two alternating buffers; returns the one that holds z.
    pub fn forward(
        &self,
        program: &mut Program,
        rows: [BufferId; 2],
        pre: &[BufferId],
        direction: Direction,
    ) -> BufferId {
        let layers = self.flow.layers();
        let raw = pre[pre.len() - 1];
        let mut rows = rows;
        for place in 0..layers {
            let (transform, kernel) = match direction {
                Direction::Forward => (place, &super::kernel::COUPLING_FORWARD),
                Direction::Inverse => (layers - 1 - place, &super::kernel::COUPLING_INVERSE),
            };
            self.conditioner_forward(program, transform, rows[0], pre);
            self.transform(program, kernel, transform, place == 0, raw, rows);
            rows.reverse();
        }
        rows[0]
    }
}

/// The way through a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Data to latent.
    Forward,
    /// Latent to data.
    Inverse,
}
