//! Definitions that tests compare shaders and the engine with: plain sums in full width, with the standard library's
//! functions. The engine computes them in another way.
//!
//! | here | computed by the engine in | shaders compared with it |
//! |-|-|-|
//! | [`linear`] | `cpu::conditioner`, on packed weights | `linear_forward`, `linear_backward`, `first_layer_backward` |
//! | [`coupling`] | `cpu::coupling` and `cpu::bijector`, on the transformed features | `coupling_forward`, `coupling_inverse`, `first_layer_backward`, and with [`spline`] |
//! | [`lu`] | `cpu::lu`, as one matrix | `lu_forward`, `lu_inverse`, `lu_backward` |
//! | [`mixture`] | `cpu::mixture`, on planes of features | `mixture_whiten`, `mixture_density`, `mixture_responsibilities`, `mixture_backward`, `mixture_noise` |
//! | [`spline`] | `cpu::bijector`, 16 values side by side | `elementwise_forward`, `elementwise_inverse`, `elementwise_backward` |

pub mod coupling;
pub mod linear;
pub mod lu;
pub mod mixture;
pub mod spline;
