//! Loops compiled for the widest vectors that the processor turns out to have.

/// Independent sums in a reduction: two registers of AVX-512 in `f32`.
pub(super) const LANES: usize = 32;

/// Runs `work` compiled for AVX2 or AVX-512 where the processor has it.
///
/// What `work` calls must be inlined into it to be compiled so.
#[inline(always)]
pub(super) fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(work)
}
