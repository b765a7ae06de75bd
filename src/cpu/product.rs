//! The two matrix products that conditioners are made of, on one thread: [`panels`] where the result is wide, and
//! [`dots`] where it is a few columns. Both read operands that [`super::packed`] or a layer before has laid out, begin
//! from a bias or a sum and end with the nonlinearity, so a value is touched once.
//!
//! A general matrix product packs both operands at every call and leaves bias, nonlinearity and thin sides to further
//! passes over the data. Here weights are packed once a step and activations not at all: at the same rate in its
//! inner loop as the crate `gemm`, a training step takes two thirds of the time (`cargo bench --bench steps`).

use std::hint::black_box;

use pulp::{Simd, WithSimd};

use super::Real;
use super::simd::{clear, filled};

/// Values in a panel: a cache line's worth of columns, two registers of AVX2 or one of AVX-512.
pub(super) const fn panel<R>() -> usize {
    64 / size_of::<R>()
}

/// Registers that a panel fills. In a `const` block of a `match`, so that only the arm it chooses is compiled.
const fn panel_registers<R: Real, S: Simd>() -> usize {
    panel::<R>() * size_of::<R>() / size_of::<R::Vector<S>>()
}

/// `width` rounded up to whole panels.
pub(super) const fn padded<R>(width: usize) -> usize {
    width.next_multiple_of(panel::<R>())
}

/// A matrix to be read value by value: its distances between rows and between columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, R> {
    values: &'a [R],
    row: usize,
    column: usize,
}

impl<'a, R> Matrix<'a, R> {
    /// `values` as rows that are `stride` apart.
    pub fn rows(values: &'a [R], stride: usize) -> Self {
        Self { values, row: stride, column: 1 }
    }

    /// The transpose of `values` as rows that are `stride` apart.
    pub fn transposed(values: &'a [R], stride: usize) -> Self {
        Self { values, row: 1, column: stride }
    }

    /// Values that a view of this many rows and columns reaches.
    fn reach(&self, rows: usize, columns: usize) -> usize {
        if rows == 0 || columns == 0 {
            return 0;
        }
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// The factor whose columns go through the registers: panels of [`panel`] columns.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, R> {
    values: &'a [R],
    /// Distance from a row of a panel to the next one.
    row: usize,
    /// Distance from a panel to the next one.
    panel: usize,
}

impl<'a, R> Panels<'a, R> {
    /// Packed panels `[n / panel][depth][panel]`.
    pub fn packed(values: &'a [R], depth: usize) -> Self {
        Self { values, row: panel::<R>(), panel: depth * panel::<R>() }
    }

    /// Rows that are `stride` apart, at least a whole number of panels.
    pub fn rows(values: &'a [R], stride: usize) -> Self {
        Self { values, row: stride, panel: panel::<R>() }
    }

    fn reach(&self, depth: usize, panels: usize) -> usize {
        if depth == 0 || panels == 0 {
            return 0;
        }
        (depth - 1) * self.row + (panels - 1) * self.panel + panel::<R>()
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a, R> {
    Zero,
    /// The same padded row `[n]` for every row of the result.
    Bias(&'a [R]),
}

/// What becomes of a product before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a, R> {
    Identity,
    /// · added to what the destination holds.
    Add,
    /// max(0, ·), which keeps a NaN.
    Relu,
    /// · above zero, elsewhere the slope times ·.
    Leaky(R),
    /// The product where the gate, of the destination's shape and stride, is above zero; else `slope` times it.
    Gate {
        gate: &'a [R],
        slope: R,
    },
}

/// to = finish(start + left · right), for left [m, depth], right [depth, n] and to [m, n] in rows `stride` apart.
///
/// Rows are written as far as their last panel ends: right and start are zero there, or their values do not matter. Where
/// `n` takes no more than half of the last panel, its other half is not computed and gets zeros, with [`Finish::Add`]
/// nothing. Every value is summed over increasing depth, so it does not depend on the rows and columns beside it.
pub(super) fn panels<R: Real>(
    [m, n, depth]: [usize; 3],
    left: Matrix<R>,
    right: Panels<R>,
    start: Start<R>,
    finish: Finish<R>,
    to: &mut [R],
    stride: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    let wide = padded::<R>(n);
    let is_half = wide - n >= panel::<R>() / 2;
    let n = wide;
    assert!(left.values.len() >= left.reach(m, depth), "left factor holds less than [{m}, {depth}]");
    assert!(
        right.values.len() >= right.reach(depth, n / panel::<R>()),
        "right factor holds less than [{depth}, {n}]"
    );
    let reach = (m - 1) * stride + n;
    assert!(stride >= n && to.len() >= reach, "product holds less than [{m}, {n}]");
    if let Start::Bias(bias) = start {
        assert!(bias.len() >= n, "bias holds less than [{n}]");
    }
    if let Finish::Gate { gate, .. } = finish {
        assert!(gate.len() >= reach, "gate holds less than [{m}, {n}]");
    }
    let mut product = PanelProduct { m, n, depth, left, right, start, finish, to, stride };
    if is_half {
        R::with_half_registers(HalfPanel(&mut product));
        product.n -= panel::<R>();
    }
    R::with_registers(product);
}

struct PanelProduct<'a, 'b, R> {
    m: usize,
    n: usize,
    depth: usize,
    left: Matrix<'a, R>,
    right: Panels<'a, R>,
    start: Start<'a, R>,
    finish: Finish<'a, R>,
    /// Whose lengths were checked, as all others.
    to: &'b mut [R],
    stride: usize,
}

impl<R: Real> WithSimd for PanelProduct<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Sixteen or twelve sums hide the latency of multiply-add and leave registers for the operands. A core that
        // multiplies one register of AVX-512 a cycle loads no more than one: a square block needs the fewest. With the
        // fewer registers of AVX2 only a block of few rows is so wide.
        match const { panel_registers::<R, S>() } {
            1 => {
                let rest = self.columns::<S, 1, 4, 4>(simd, 0);
                let rest = self.columns::<S, 1, 6, 3>(simd, rest);
                let rest = self.columns::<S, 1, 8, 2>(simd, rest);
                self.columns::<S, 1, 8, 1>(simd, rest);
            }
            2 => {
                let rest = if self.m <= 3 { self.columns::<S, 2, 3, 4>(simd, 0) } else { 0 };
                self.columns::<S, 2, 6, 2>(simd, rest);
            }
            4 => _ = self.columns::<S, 4, 3, 4>(simd, 0),
            8 => _ = self.columns::<S, 8, 1, 8>(simd, 0),
            _ => _ = self.columns::<S, 16, 1, 16>(simd, 0),
        }
    }
}

impl<R: Real> PanelProduct<'_, '_, R> {
    /// All rows of the panels from `panel` on, as many as fill blocks of `M` rows and `W` registers, where a panel is `V`
    /// registers; returns the first panel after them. The panels of a block stay in the first cache while the rows pass.
    #[inline(always)]
    fn columns<S: Simd, const V: usize, const M: usize, const W: usize>(
        &mut self,
        simd: S,
        mut panel: usize,
    ) -> usize {
        while panel + W / V <= self.n / self::panel::<R>() {
            self.rows::<S, V, M, W>(simd, panel);
            panel += W / V;
        }
        panel
    }

    /// All rows of `W` registers from a panel's first on, in blocks of `M` rows.
    #[inline(always)]
    fn rows<S: Simd, const V: usize, const M: usize, const W: usize>(&mut self, simd: S, panel: usize) {
        let mut row = 0;
        while row + M <= self.m {
            self.block::<S, M, W, V>(simd, row, panel);
            row += M;
        }
        macro_rules! rest {
            ($($count:literal)*) => {
                match self.m - row {
                    $($count if const { $count < M } => self.block::<S, $count, W, V>(simd, row, panel),)*
                    _ => {}
                }
            };
        }
        rest!(1 2 3 4 5 6 7);
    }

    /// Rows `row..row + M` of `W` registers from a panel's first on, where a panel is `V` registers.
    #[inline(always)]
    fn block<S: Simd, const M: usize, const W: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: usize,
    ) {
        let lanes = R::lanes::<S>();
        let column = panel * self::panel::<R>();
        // SAFETY: `panels` has checked that every operand reaches as far as [m, n] and depth demand, and row + M ≤ m,
        // column + W · lanes ≤ n hold by the loops of `rows` and `columns`, and in [`HalfPanel`].
        unsafe {
            let to = self.to.as_mut_ptr().add(row * self.stride + column);
            let mut sums = match self.start {
                Start::Zero => [[R::splat(simd, R::zero()); W]; M],
                Start::Bias(bias) => [filled(|v| R::load::<S>(bias.as_ptr().add(column + v * lanes))); M],
            };
            // Of rows from one pointer on the compiler makes a chain of additions, which takes longer than the products of
            // a narrow block. It does not see that the second pointer has to do with the first.
            let first = self.left.values.as_ptr().add(row * self.left.row);
            let fifth = first.wrapping_add(4 * self.left.row);
            let (mut left, mut fifth) = (first, if const { M > 4 } { black_box(fifth) } else { fifth });
            let mut right = self.right.values.as_ptr().add(panel * self.right.panel);
            for _ in 0..self.depth {
                let factors: [R::Vector<S>; W] =
                    filled(|v| R::load::<S>(right.add(v / V * self.right.panel + v % V * lanes)));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let factor = R::splat(
                        simd,
                        *if m < 4 { left.add(m * self.left.row) } else { fifth.add((m - 4) * self.left.row) },
                    );
                    // No closure: of a single register it is called, and the instruction from there.
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = R::multiply_add(simd, factor, factors[v], *sum);
                    }
                }
                left = left.wrapping_add(self.left.column);
                fifth = fifth.wrapping_add(self.left.column);
                right = right.wrapping_add(self.right.row);
            }
            for (m, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let place = m * self.stride + v * lanes;
                    let value = match self.finish {
                        Finish::Identity => sum,
                        Finish::Add => R::plus(simd, R::load::<S>(to.add(place)), sum),
                        Finish::Relu => R::rectify(simd, sum),
                        Finish::Leaky(slope) => R::slope(simd, sum, slope, sum),
                        Finish::Gate { gate, slope } => {
                            let gate = R::load::<S>(gate.as_ptr().add(row * self.stride + column + place));
                            R::slope(simd, gate, slope, sum)
                        }
                    };
                    R::store::<S>(to.add(place), value);
                }
            }
        }
    }
}

/// The last panel of a product, of which only the first half is wanted.
struct HalfPanel<'p, 'a, 'b, R>(&'p mut PanelProduct<'a, 'b, R>);

impl<R: Real> WithSimd for HalfPanel<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(product) = self;
        let panel = product.n / self::panel::<R>() - 1;
        match const { panel_registers::<R, S>() } {
            // Half a register has no name here: the whole panel is computed.
            1 => return product.rows::<S, 1, 8, 1>(simd, panel),
            2 => product.rows::<S, 2, 8, 1>(simd, panel),
            4 => product.rows::<S, 4, 6, 2>(simd, panel),
            8 => product.rows::<S, 8, 3, 4>(simd, panel),
            _ => product.rows::<S, 16, 1, 8>(simd, panel),
        }
        if !matches!(product.finish, Finish::Add) {
            let end = product.n;
            for row in product.to.chunks_mut(product.stride).take(product.m) {
                clear(&mut row[end - self::panel::<R>() / 2..end]);
            }
        }
    }
}

/// to\[r, c\] = bias\[c\] + Σ left\[r, ·\] · right\[c, ·\], for left [m, depth], right [columns, depth] and to [m, columns]
/// in rows `stride` apart. `depth` is a whole number of panels.
///
/// Every value of a panel has a sum of its own, and these are added by halves, however many registers hold them: the
/// same bits with AVX2 and with AVX-512.
pub(super) fn dots<R: Real>(
    [m, columns, depth]: [usize; 3],
    (left, left_stride): (&[R], usize),
    right: &[R],
    bias: Option<&[R]>,
    to: &mut [R],
    stride: usize,
) {
    if m == 0 || columns == 0 {
        return;
    }
    assert!(depth.is_multiple_of(panel::<R>()), "{depth} values are not whole panels");
    assert!(left.len() >= (m - 1) * left_stride + depth, "left factor holds less than [{m}, {depth}]");
    assert!(right.len() >= columns * depth, "right factor holds less than [{columns}, {depth}]");
    assert!(
        stride >= columns && to.len() >= (m - 1) * stride + columns,
        "product holds less than [{m}, {columns}]"
    );
    assert!(bias.is_none_or(|bias| bias.len() >= columns), "bias holds less than [{columns}]");
    R::with_registers(Dots { m, columns, depth, left, left_stride, right, bias, to, stride });
}

struct Dots<'a, 'b, R> {
    m: usize,
    columns: usize,
    depth: usize,
    left: &'a [R],
    left_stride: usize,
    right: &'a [R],
    bias: Option<&'a [R]>,
    to: &'b mut [R],
    stride: usize,
}

impl<R: Real> WithSimd for Dots<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Registers of a panel; rows of a block of one column and of a block of two.
        match const { panel_registers::<R, S>() } {
            1 => self.all::<S, 1, 4, 4>(simd),
            2 => self.all::<S, 2, 4, 2>(simd),
            4 => self.all::<S, 4, 2, 1>(simd),
            8 => self.all::<S, 8, 1, 1>(simd),
            _ => self.all::<S, 16, 1, 1>(simd),
        }
    }
}

impl<R: Real> Dots<'_, '_, R> {
    #[inline(always)]
    fn all<S: Simd, const P: usize, const ONE: usize, const TWO: usize>(&mut self, simd: S) {
        let mut column = 0;
        while column + 2 <= self.columns {
            self.columns_at::<S, P, TWO, 2>(simd, column);
            column += 2;
        }
        if column < self.columns {
            self.columns_at::<S, P, ONE, 1>(simd, column);
        }
    }

    #[inline(always)]
    fn columns_at<S: Simd, const P: usize, const M: usize, const C: usize>(
        &mut self,
        simd: S,
        column: usize,
    ) {
        let mut row = 0;
        while row + M <= self.m {
            self.block::<S, P, M, C>(simd, row, column);
            row += M;
        }
        while row < self.m {
            self.block::<S, P, 1, C>(simd, row, column);
            row += 1;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const P: usize, const M: usize, const C: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let lanes = R::lanes::<S>();
        let mut sums = [[[R::splat(simd, R::zero()); P]; C]; M];
        // SAFETY: `dots` has checked that the operands reach as far as [m, columns] and depth demand; row + M ≤ m and
        // column + C ≤ columns by the loops of `all` and `columns_at`; depth is a whole number of panels of P registers.
        unsafe {
            let load =
                |from: *const R| -> [R::Vector<S>; P] { filled(|p| R::load::<S>(from.add(p * lanes))) };
            let left = self.left.as_ptr().add(row * self.left_stride);
            let right = self.right.as_ptr().add(column * self.depth);
            let mut k = 0;
            while k < self.depth {
                let others: [_; C] = filled(|c| load(right.add(c * self.depth + k)));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let factors = load(left.add(m * self.left_stride + k));
                    for (c, sums) in sums.iter_mut().enumerate() {
                        for (p, sum) in sums.iter_mut().enumerate() {
                            *sum = R::multiply_add(simd, factors[p], others[c][p], *sum);
                        }
                    }
                }
                k += panel::<R>();
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (c, mut sums) in sums.into_iter().enumerate() {
                let mut half = P / 2;
                while half > 0 {
                    for p in 0..half {
                        sums[p] = R::plus(simd, sums[p], sums[p + half]);
                    }
                    half /= 2;
                }
                let bias = self.bias.map_or(R::zero(), |bias| bias[column + c]);
                self.to[(row + m) * self.stride + column + c] = bias + R::sum(simd, sums[0]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: u64) -> Vec<f64> {
        (0..count as u64)
            .map(|i| {
                let bits =
                    (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
                (bits.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .collect()
    }

    fn close(got: f64, want: f64, what: &str) {
        assert!((got - want).abs() < 1e-12, "{what}: got {got}, want {want}");
    }

    /// [m, n, depth] product of values by panels, of every start and finish, against its sums.
    fn product_equals_its_sums([m, n, depth]: [usize; 3]) {
        let wide = padded::<f64>(n);
        let is_half = wide - n >= panel::<f64>() / 2;
        let stride = wide + 3;
        // Zeros behind the last column, as what is packed has.
        let padded_rows = |rows: usize, seed: u64| -> Vec<f64> {
            let places = values(rows * wide, seed).into_iter().enumerate();
            places.map(|(place, value)| if place % wide < n { value } else { 0.0 }).collect()
        };
        let (left, right) = (values(m * depth, 1), padded_rows(depth, 2));
        let (bias, gate, before) = (padded_rows(1, 3), values(m * stride, 4), values(m * stride, 5));
        let product = |r: usize, c: usize| -> f64 {
            (0..depth).map(|k| left[r * depth + k] * right[k * wide + c]).sum()
        };
        let gated = Finish::Gate { gate: &gate, slope: 0.25 };
        for (name, start, finish) in [
            ("zero", Start::Zero, Finish::Identity),
            ("bias, relu", Start::Bias(&bias), Finish::Relu),
            ("bias, gate", Start::Bias(&bias), gated),
            ("zero, add", Start::Zero, Finish::Add),
            ("zero, leaky", Start::Zero, Finish::Leaky(0.5)),
        ] {
            let mut to = before.clone();
            let operands = (Matrix::rows(&left, depth), Panels::rows(&right, wide));
            panels([m, n, depth], operands.0, operands.1, start, finish, &mut to, stride);
            for r in 0..m {
                for c in 0..wide {
                    let at = r * stride + c;
                    let sum = product(r, c)
                        + match start {
                            Start::Zero => 0.0,
                            Start::Bias(bias) => bias[c],
                        };
                    let want = match finish {
                        Finish::Identity => sum,
                        Finish::Add => before[at] + sum,
                        Finish::Relu => sum.max(0.0),
                        Finish::Leaky(slope) => sum * if sum > 0.0 { 1.0 } else { slope },
                        Finish::Gate { gate, slope } => sum * if gate[at] > 0.0 { 1.0 } else { slope },
                    };
                    close(to[at], want, &format!("{name}, {m} × {n}, half: {is_half}, [{r}, {c}]"));
                }
                let rest = r * stride + wide..(r + 1) * stride;
                assert_eq!(to[rest.clone()], before[rest]);
            }
        }
    }

    #[test]
    fn panel_products_equal_their_sums_for_every_block_start_and_finish() {
        let half = panel::<f64>() / 2;
        for m in 1..=13 {
            for n in [1, half, half + 1, 2 * half, 5 * half - 1, 5 * half, 5 * half + 1, 6 * half] {
                product_equals_its_sums([m, n, 7]);
            }
        }
    }

    #[test]
    fn transposed_factors_and_packed_panels_are_read_as_such() {
        let (m, n, depth) = (5, 2 * panel::<f64>(), 3);
        let (left, right) = (values(m * depth, 6), values(depth * n, 7));
        let mut packed = vec![f64::NAN; depth * n];
        for k in 0..depth {
            for c in 0..n {
                let (p, within) = (c / panel::<f64>(), c % panel::<f64>());
                packed[(p * depth + k) * panel::<f64>() + within] = right[k * n + c];
            }
        }
        let mut to = vec![f64::NAN; m * n];
        let (a, b) = (Matrix::transposed(&left, m), Panels::packed(&packed, depth));
        panels([m, n, depth], a, b, Start::Zero, Finish::Identity, &mut to, n);
        for r in 0..m {
            for c in 0..n {
                let want = (0..depth).map(|k| left[k * m + r] * right[k * n + c]).sum();
                close(to[r * n + c], want, &format!("[{r}, {c}]"));
            }
        }
    }

    #[test]
    fn dots_equal_their_sums() {
        let depth = 3 * panel::<f64>();
        for m in [1, 3, 4, 9] {
            for columns in 1..=5 {
                let (stride, to_stride) = (depth + 1, columns + 2);
                let (left, right, bias) =
                    (values(m * stride, 1), values(columns * depth, 2), values(columns, 3));
                let mut to = vec![f64::NAN; m * to_stride];
                dots([m, columns, depth], (&left, stride), &right, Some(&bias), &mut to, to_stride);
                for r in 0..m {
                    for c in 0..columns {
                        let sum: f64 = (0..depth).map(|k| left[r * stride + k] * right[c * depth + k]).sum();
                        close(
                            to[r * to_stride + c],
                            bias[c] + sum,
                            &format!("[{r}, {c}] of {m} × {columns}"),
                        );
                    }
                }
            }
        }
    }

    /// A product of every shape with the registers of `simd`, by panels and by dots.
    fn products(simd: impl Simd) -> Vec<f32> {
        let shapes = (1..=9).flat_map(|m| {
            [1, 2, 5, 16, 63, 64, 80, 100]
                .into_iter()
                .flat_map(move |columns| [1, 15, 16, 40, 129].map(|depth| [m, columns, depth]))
        });
        shapes.flat_map(|shape| product(simd, shape)).collect()
    }

    fn product(simd: impl Simd, [m, columns, depth]: [usize; 3]) -> Vec<f32> {
        let single =
            |values: Vec<f64>| -> Vec<f32> { values.into_iter().map(|value| value as f32).collect() };
        let wide = padded::<f32>(depth);
        let n = padded::<f32>(columns);
        let left = single(values(m * wide, 1));
        let (right, rows) = (single(values(depth * n, 2)), single(values(columns * wide, 3)));
        let bias = single(values(n, 4));
        let (mut by_panels, mut by_dots) = (vec![0.0f32; m * n], vec![0.0f32; m * columns]);
        let mut by_half = by_panels.clone();
        let by_panels_into = |to| PanelProduct {
            m,
            n,
            depth,
            left: Matrix::rows(&left, wide),
            right: Panels::rows(&right, n),
            start: Start::Bias(&bias),
            finish: Finish::Leaky(0.3),
            to,
            stride: n,
        };
        simd.vectorize(by_panels_into(&mut by_panels));
        simd.vectorize(HalfPanel(&mut by_panels_into(&mut by_half)));
        let (panel, half) = (panel::<f32>(), panel::<f32>() / 2);
        for (whole, half_row) in by_panels.chunks_exact(n).zip(by_half.chunks_exact(n)) {
            assert_eq!(half_row[n - panel..n - half], whole[n - panel..n - half], "{m} × {columns}, {depth}");
        }
        simd.vectorize(Dots {
            m,
            columns,
            depth: wide,
            left: &left,
            left_stride: wide,
            right: &rows,
            bias: Some(&bias),
            to: &mut by_dots,
            stride: columns,
        });
        [by_panels, by_dots].concat()
    }

    #[test]
    fn registers_of_four_values_give_the_products_of_single_ones() {
        let [got, want] = [products(pulp::Scalar128b), products(pulp::Scalar)];
        assert_eq!(got.len(), want.len());
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= 1e-4, "[{at}]: got {got}, want {want}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx2_and_avx_512_give_the_same_bits() {
        use pulp::x86::{V3, V4};
        let (Some(narrow), Some(wide)) = (V3::try_new(), V4::try_new()) else {
            println!("skipped: the processor has no AVX-512");
            return;
        };
        let [narrow, wide] = [products(narrow), products(wide)];
        for (at, (narrow, wide)) in narrow.iter().zip(&wide).enumerate() {
            assert_eq!(narrow.to_bits(), wide.to_bits(), "[{at}]");
        }
    }

    #[test]
    fn a_rectified_nan_stays_one() {
        let n = panel::<f32>();
        let mut to = vec![0.0f32; n];
        let (a, b) = ([f32::NAN], vec![1.0f32; n]);
        panels([1, n, 1], Matrix::rows(&a, 1), Panels::rows(&b, n), Start::Zero, Finish::Relu, &mut to, n);
        assert!(to.iter().all(|value| value.is_nan()));
    }
}
