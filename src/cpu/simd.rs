//! Vector registers: those of either precision, and loops compiled for the widest that the processor turns out to have.
//!
//! What is compiled for several widths is long, so that is left to single precision, in which models are trained and used.
//! Products in double precision know AVX2, its other loops what every processor has: they call the standard library.

use pulp::{Arch, Simd, WithSimd};

/// Independent sums in a reduction: two registers of AVX-512 in `f32`.
pub(super) const LANES: usize = 32;

/// Σ term(i) over 0..`len`, a multiple of [`LANES`], in an order that does not depend on the registers' width. To be called
/// within [`Registers::vectorised`].
#[inline(always)]
pub(super) fn lane_sum<R: super::Real>(len: usize, term: impl Fn(usize) -> R) -> R {
    let mut lanes = [R::zero(); LANES];
    for group in 0..len / LANES {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(group * LANES + lane);
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            let other = lanes[lane + half];
            lanes[lane] += other;
        }
        half /= 2;
    }
    lanes[0]
}

/// Calls `work` with the values of both that stand at one place, as far as the shorter one reaches.
///
/// This, [`each_row`] and [`filled`] stand in code that is compiled for wide registers, because parts of the standard library's
/// `zip` and `array::from_fn` are inlined only where units of a crate are optimised together, which takes a build far longer.
#[inline(always)]
pub(super) fn each<A, B>(to: &mut [A], from: &[B], mut work: impl FnMut(&mut A, &B)) {
    let count = to.len().min(from.len());
    let (to, from) = (&mut to[..count], &from[..count]);
    for at in 0..count {
        work(&mut to[at], &from[at]);
    }
}

/// Calls `work` with each row of `to` and that of `from`, whose lengths are `widths`.
#[inline(always)]
pub(super) fn each_row<A, B>(
    to: &mut [A],
    from: &[B],
    widths: [usize; 2],
    mut work: impl FnMut(&mut [A], &[B]),
) {
    let (mut to, mut from) = (to.chunks_exact_mut(widths[0]), from.chunks_exact(widths[1]));
    while let (Some(to), Some(from)) = (to.next(), from.next()) {
        work(to, from);
    }
}

/// Copies a few values in place, where a call to copy memory would cost more than the copy.
#[inline(always)]
pub(super) fn copy_few<R: Copy>(from: &[R], to: &mut [R]) {
    const FEW: usize = 16;
    let (from, from_rest) = from.as_chunks::<FEW>();
    let (to, to_rest) = to.as_chunks_mut::<FEW>();
    each(to, from, |to, from| *to = *from);
    each(to_rest, from_rest, |to, &from| *to = from);
}

/// Sets all to zero, in place: a function of the standard library would be called for a few values as for many.
#[inline(always)]
pub(super) fn clear<R: super::Real>(values: &mut [R]) {
    values.iter_mut().for_each(|value| *value = R::zero());
}

/// `value` of every place, of which there is at least one.
#[inline(always)]
pub(super) fn filled<T: Copy, const N: usize>(value: impl Fn(usize) -> T) -> [T; N] {
    let mut values = [value(0); N];
    for (at, to) in values.iter_mut().enumerate() {
        *to = value(at);
    }
    values
}

/// Registers of a precision. Sealed: the module is private.
pub trait Registers: Copy {
    /// A register full of values.
    type Vector<S: Simd>: Copy;

    /// Whether [`Registers::vectorised`] chooses among several widths.
    const VECTORISED: bool;

    /// Runs `work` compiled for AVX2 or AVX-512 where the processor has it and [`Registers::VECTORISED`] holds.
    ///
    /// What `work` calls must be inlined into it to be compiled so.
    fn vectorised<T>(work: impl FnOnce() -> T) -> T;

    /// Runs `work` with the processor's registers.
    fn with_registers<W: WithSimd>(work: W) -> W::Output;

    /// Runs `work` with registers that are no wider than those of AVX2: on a processor with AVX-512, half a cache line.
    #[inline(always)]
    fn with_half_registers<W: WithSimd>(work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        return match pulp::x86::V3::try_new() {
            Some(simd) => Simd::vectorize(simd, work),
            None => Simd::vectorize(pulp::Scalar, work),
        };
        #[cfg(not(target_arch = "x86_64"))]
        Arch::new().dispatch(work)
    }

    /// Values in a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }

    /// `value` in every lane.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// a · b + c, rounded once where the processor can.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// a + b.
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// `value` where `gate` is above zero, elsewhere `slope` times `value`, which for a slope of zero is zero.
    fn slope<S: Simd>(simd: S, gate: Self::Vector<S>, slope: Self, value: Self::Vector<S>)
    -> Self::Vector<S>;

    /// Zero where `value` is below zero, `value` elsewhere, NaN included.
    fn rectify<S: Simd>(simd: S, value: Self::Vector<S>) -> Self::Vector<S>;

    /// Sum over the lanes, in an order of the register's own.
    fn sum<S: Simd>(simd: S, value: Self::Vector<S>) -> Self;

    /// The register's worth of values at `from`.
    ///
    /// # Safety
    /// All of them must be readable; they need not be aligned.
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> Self::Vector<S> {
        // SAFETY: by contract.
        unsafe { from.cast::<Self::Vector<S>>().read_unaligned() }
    }

    /// Puts the register's values to `to`.
    ///
    /// # Safety
    /// All of them must be writable; they need not be aligned.
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, value: Self::Vector<S>) {
        // SAFETY: by contract.
        unsafe { to.cast::<Self::Vector<S>>().write_unaligned(value) }
    }
}

macro_rules! registers {
    ($real:ty, { $($dispatch:tt)* }, $vector:ident, $splat:ident, $multiply_add:ident, $add:ident, $greater:ident, $less:ident, $select:ident, $sum:ident) => {
        impl Registers for $real {
            type Vector<S: Simd> = S::$vector;

            $($dispatch)*

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$multiply_add(a, b, c)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn slope<S: Simd>(simd: S, gate: S::$vector, slope: Self, value: S::$vector) -> S::$vector {
                let zero = simd.$splat(0.0);
                // An infinite gradient times zero would be a NaN.
                let below =
                    if slope == 0.0 { zero } else { simd.$multiply_add(simd.$splat(slope), value, zero) };
                simd.$select(simd.$greater(gate, zero), value, below)
            }

            #[inline(always)]
            fn rectify<S: Simd>(simd: S, value: S::$vector) -> S::$vector {
                let zero = simd.$splat(0.0);
                simd.$select(simd.$less(value, zero), zero, value)
            }

            #[inline(always)]
            fn sum<S: Simd>(simd: S, value: S::$vector) -> Self {
                simd.$sum(value)
            }
        }
    };
}

registers!(
    f32,
    {
        const VECTORISED: bool = true;

        #[inline(always)]
        fn vectorised<T>(work: impl FnOnce() -> T) -> T {
            Arch::new().dispatch(work)
        }

        #[inline(always)]
        fn with_registers<W: WithSimd>(work: W) -> W::Output {
            Arch::new().dispatch(work)
        }
    },
    f32s,
    splat_f32s,
    mul_add_e_f32s,
    add_f32s,
    greater_than_f32s,
    less_than_f32s,
    select_f32s,
    reduce_sum_f32s
);
registers!(
    f64,
    {
        const VECTORISED: bool = false;

        #[inline(always)]
        fn vectorised<T>(work: impl FnOnce() -> T) -> T {
            work()
        }

        #[inline(always)]
        fn with_registers<W: WithSimd>(work: W) -> W::Output {
            Self::with_half_registers(work)
        }
    },
    f64s,
    splat_f64s,
    mul_add_e_f64s,
    add_f64s,
    greater_than_f64s,
    less_than_f64s,
    select_f64s,
    reduce_sum_f64s
);
