//! What a plan is made for, as a compiler has a target.

/// What a plan is made for: a device's limits, and whether it is software that runs on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its limits.
    pub limits: wgpu::Limits,
    /// Whether it is software that runs on the CPU.
    pub software: bool,
}

impl Default for Target {
    /// A GPU with the limits that every WebGPU adapter has.
    fn default() -> Self {
        Self { limits: wgpu::Limits::default(), software: false }
    }
}
