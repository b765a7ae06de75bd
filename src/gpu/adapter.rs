//! Adapters and devices: what there is to compute on, and what became of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::kernel::{Access, Constant, Kernel};
use super::target::Target;
use crate::engine::DeviceInfo;
use crate::error::{Error, Remedy, Result};

/// A GPU, or software that acts as one.
#[derive(Clone, Debug)]
pub struct Adapter {
    adapter: wgpu::Adapter,
    info: DeviceInfo,
    driver: String,
}

/// Every adapter that wgpu finds, hardware first. Reads `WGPU_BACKEND` and its kin from the environment.
pub async fn adapters() -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Validation layers cost time and are of use to developers alone, who set WGPU_VALIDATION.
    if std::env::var_os("WGPU_VALIDATION").is_none() {
        descriptor.flags = wgpu::InstanceFlags::empty();
    }
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters: Vec<Adapter> = instance
        .enumerate_adapters(wgpu::Backends::all())
        .await
        .into_iter()
        .filter(|adapter| {
            adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        })
        .map(|adapter| {
            let found = adapter.get_info();
            let driver = format!("{} {}", found.driver, found.driver_info).trim().to_owned();
            let info = DeviceInfo {
                name: found.name,
                backend: found.backend.to_str().to_string(),
                software: found.device_type == wgpu::DeviceType::Cpu,
            };
            Adapter { adapter, info, driver }
        })
        .collect();
    adapters.sort_by_key(|adapter| adapter.info.software);
    adapters
}

impl Adapter {
    /// Name, backend and kind.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Whether it is a GPU and no software that acts as one.
    pub fn is_hardware(&self) -> bool {
        !self.info.software
    }

    /// The adapter's limits.
    pub fn limits(&self) -> wgpu::Limits {
        self.adapter.limits()
    }

    /// What the adapter can do beyond what every WebGPU adapter can.
    pub fn features(&self) -> wgpu::Features {
        self.adapter.features()
    }

    /// The driver's name and version, as far as it tells them.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What a plan needs to know of it.
    pub fn target(&self) -> Target {
        Target { limits: self.limits(), software: self.info.software }
    }

    /// Opens a device with all the limits that the adapter has, and with timestamp queries where it has them.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses.
    pub async fn open(&self) -> Result<Context> {
        self.open_with(self.features() & wgpu::Features::TIMESTAMP_QUERY).await
    }

    /// Opens a device with all the limits that the adapter has and these of its features.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses, or when the adapter lacks one of the features.
    pub async fn open_with(&self, features: wgpu::Features) -> Result<Context> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("moonflow"),
            required_features: features,
            required_limits: self.adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = self
            .adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::Device(format!("{} could not be opened: {error}", self.info)))?;
        let failure: Failure = Arc::default();
        let (lost, wrong) = (failure.clone(), failure.clone());
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&lost, format!("the device was lost: {message}"));
            }
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&wrong, error.to_string())));
        let (info, driver) = (self.info.clone(), self.driver.clone());
        Ok(Context { device, queue, info, driver, failure, pipelines: Arc::default() })
    }
}

/// The first thing that went wrong on a device.
type Failure = Arc<Mutex<Option<String>>>;

fn note(failure: &Failure, message: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}

/// An open device with its queue and the kernels used so far.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: DeviceInfo,
    driver: String,
    failure: Failure,
    pipelines: Arc<Mutex<HashMap<Specialised, Pipeline>>>,
}

/// A kernel's address and the values of its constants: two kernels may share a name, when one is a changed copy of
/// the other.
type Specialised = (usize, Vec<u32>);

/// A kernel and the layout of its bindings. It is compiled when it is first recorded: no call uses all kernels of its plan,
/// and a driver takes seconds for some.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    kernel: &'static Kernel,
    constants: Vec<Constant>,
    pub layout: wgpu::BindGroupLayout,
    compiled: Arc<OnceLock<wgpu::ComputePipeline>>,
}

impl Context {
    /// Name, backend and kind.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The driver's name and version, as far as it tells them.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The device's limits.
    pub fn limits(&self) -> wgpu::Limits {
        self.device.limits()
    }

    /// What a plan needs to know of it.
    pub fn target(&self) -> Target {
        Target { limits: self.limits(), software: self.info.software }
    }

    /// Whether the device can tell how long a dispatch takes: see [`Executor::time`](super::executor::Executor::time).
    pub fn has_timestamps(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Reports what went wrong since the device was opened.
    ///
    /// # Errors
    /// [`Error::Device`] with the first failure: a lost device, memory that ran out, a rejected command.
    pub fn health(&self) -> Result<()> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(message) => Err(Error::Device(format!("{}: {message}", self.info)).advise(Remedy::Cpu)),
        }
    }

    /// Names of the kernels that have been compiled, in alphabetical order, each as often as it has been with different
    /// constants.
    pub fn compiled(&self) -> Vec<&'static str> {
        let pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = pipelines.values().filter(|pipeline| pipeline.compiled.get().is_some());
        let mut names: Vec<_> = compiled.map(|pipeline| pipeline.kernel.name).collect();
        names.sort_unstable();
        names
    }

    /// `kernel` with these constants; the same for all that ask.
    pub(super) fn pipeline(&self, kernel: &'static Kernel, constants: &[Constant]) -> Pipeline {
        let key = (std::ptr::from_ref(kernel).addr(), kernel.values(constants));
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = pipelines.entry(key).or_insert_with(|| Pipeline {
            kernel,
            constants: constants.to_vec(),
            layout: self.layout(kernel),
            compiled: Arc::default(),
        });
        pipeline.clone()
    }

    /// What `pipeline` is compiled to, on first use.
    pub(super) fn compile<'a>(&self, pipeline: &'a Pipeline) -> &'a wgpu::ComputePipeline {
        let Pipeline { kernel, constants, layout, compiled } = pipeline;
        compiled.get_or_init(|| self.create(kernel, constants, layout))
    }

    fn layout(&self, kernel: &Kernel) -> wgpu::BindGroupLayout {
        let entries: Vec<_> = kernel
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.number,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding.access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &entries,
        })
    }

    fn create(
        &self,
        kernel: &Kernel,
        constants: &[Constant],
        layout: &wgpu::BindGroupLayout,
    ) -> wgpu::ComputePipeline {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.specialised(constants).into()),
        };
        // The counter that would end a loop that does not end by itself keeps drivers from unrolling: without it kernels
        // are up to 2.3 times as fast. Bounds are still checked.
        let checks =
            wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
        // SAFETY: the loops of the kernels count towards a bound that they do not change; only the one of `permute` walks
        // a cycle, which comes back to where it began, in range.
        #[allow(unsafe_code)]
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.name),
            // Every kernel writes its workgroup memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        })
    }
}
