//! Definitions that shaders are held to and that the engine computes in another way: plain sums in full width, with the
//! standard library's functions. Only tests call them.
//!
//! | here | computed by the engine in | shaders held to it |
//! |-|-|-|
//! | [`linear`] | `cpu::conditioner`, on packed weights | `linear_forward`, `linear_backward`, `first_layer_backward` |
//! | [`coupling`] | `cpu::coupling` and `cpu::bijector`, on the transformed features | `coupling_forward`, `coupling_inverse`, `first_layer_backward`, and with [`spline`] |
//! | [`lu`] | `cpu::lu`, as one matrix | `lu_forward`, `lu_inverse`, `lu_backward` |
//! | [`spline`] | `cpu::bijector`, 16 values side by side | `elementwise_forward`, `elementwise_inverse`, `elementwise_backward` |

pub mod coupling;
pub mod linear;
pub mod lu;
pub mod spline;
