//! `shaders/layered/lu.wgsl`, `lu_inverse.wgsl` and `lu_backward.wgsl` against `src/cpu/reference/lu.rs`.

use std::ops::Range;

use moonflow::cpu::Real;
use moonflow::cpu::reference::lu::Lu;
use moonflow::gpu::kernel::{Constant, LU_BACKWARD, LU_FORWARD, LU_INVERSE};
use moonflow::gpu::plan::grid;
use moonflow::gpu::tile::Tile;
use moonflow::gpu::uniforms;

use super::harness::{Call, Case, POISON, bits, poisoned, random, real};
use super::layer::{Before, Factor, TILES, order, pick};

/// (features, modelled, rows, capacity, splits): in and beyond a tile of 64, a depth of 16 and a workgroup.
const SIZES: [(usize, usize, usize, usize, usize); 7] = [
    (5, 3, 3, 5, 1),
    (70, 65, 130, 133, 2),
    (2, 2, 65, 70, 3),
    (3, 1, 1, 1, 1),
    (17, 17, 64, 64, 1),
    (12, 9, 33, 40, 2),
    (33, 16, 7, 64, 1),
];

/// Which of the tiles are tried: square, thin and high.
const TRIED: [usize; 3] = [0, 1, 3];

/// Parameters before the layer, and after it.
const BEFORE: usize = 5;
const AFTER: usize = 3;

/// Rows, and an LU layer amid other parameters.
struct Setup {
    features: usize,
    modelled: usize,
    rows: usize,
    capacity: usize,
    splits: usize,
    tile: Tile,
    begins: bool,
    factor: Factor,
    /// In the order of the layout, zero beside the triangles.
    parameters: Vec<f32>,
    values: Vec<f32>,
    others: Vec<f32>,
    log_dets: Vec<f32>,
}

impl Setup {
    fn all() -> impl Iterator<Item = Self> {
        TRIED.into_iter().flat_map(|tile| {
            SIZES.into_iter().enumerate().map(move |(at, size)| Self::new(at + tile, TILES[tile], size))
        })
    }

    fn new(
        at: usize,
        tile: Tile,
        (features, modelled, rows, capacity, splits): (usize, usize, usize, usize, usize),
    ) -> Self {
        let seed = (7 * features + rows + at) as u64;
        // Small beside the diagonal, so that the inverse does not enlarge what it begins with.
        let limit = 1.5 / (modelled as f64).sqrt();
        let square = modelled * modelled;
        let mut parameters = random(2 * square, limit, seed);
        for at in 0..square {
            let (i, j) = (at / modelled, at % modelled);
            parameters[if j < i { square + at } else { at }] = 0.0;
            if i == j {
                parameters[square + at] = 0.0;
            }
        }
        parameters.extend(random(2 * modelled, 0.8, 100 + seed));
        Self {
            features,
            modelled,
            rows,
            capacity,
            splits: capacity.div_ceil(capacity.div_ceil(splits)),
            tile,
            begins: at.is_multiple_of(2),
            factor: Factor::Mean,
            parameters,
            values: random(rows * features, 3.0, 200 + seed),
            others: random(rows * features, 2.0, 300 + seed),
            log_dets: random(rows * features, 3.0, 400 + seed),
        }
    }

    fn total(&self) -> usize {
        BEFORE + self.parameters.len() + AFTER
    }

    /// Where lower, upper, log_diagonal and bias begin among all parameters.
    fn starts(&self) -> [usize; 4] {
        let square = self.modelled * self.modelled;
        [0, square, 2 * square, 2 * square + self.modelled].map(|start| BEFORE + start)
    }

    /// Whether a place of a square matrix lies within a triangle.
    fn within(&self, upper: bool) -> Vec<bool> {
        let size = self.modelled;
        let beyond = |at: usize| if upper { at % size > at / size } else { at % size < at / size };
        (0..size * size).map(beyond).collect()
    }

    fn modelled_columns(&self) -> Vec<bool> {
        (0..self.features).map(|feature| feature < self.modelled).collect()
    }

    fn context_columns(&self) -> Vec<bool> {
        self.modelled_columns().iter().map(|modelled| !modelled).collect()
    }

    /// Places of these columns.
    fn places(&self, columns: &[bool]) -> Vec<usize> {
        pick(&(0..self.rows * self.features).collect::<Vec<_>>(), columns)
    }

    /// A buffer with these columns of `values`.
    fn columns(&self, values: &[f32], columns: &[bool]) -> Vec<u32> {
        let mut words = vec![POISON; self.capacity * self.features];
        for place in self.places(columns) {
            words[place] = values[place].to_bits();
        }
        words
    }

    fn uniform(&self, upper: bool) -> uniforms::Layer {
        let [lower_at, upper_at, log_diagonal, bias] = self.starts();
        let size = self.modelled as u32;
        uniforms::Layer {
            inputs: size,
            outputs: size,
            weight: if upper { upper_at } else { lower_at } as u32,
            bias: if upper { log_diagonal } else { bias } as u32,
            parameters: self.total() as u32,
            capacity: self.capacity as u32,
            features: self.features as u32,
            rows_per_split: self.capacity.div_ceil(self.splits) as u32,
            begins: u32::from(self.begins),
            modelled: size,
            ..Default::default()
        }
    }

    fn constants(&self, upper: bool) -> Vec<Constant> {
        [&[("NETWORKS", 1), ("UPPER", u32::from(upper))][..], &self.tile.constants()].concat()
    }

    fn call(&self, uniform: &uniforms::Layer, groups: [u32; 3]) -> Call {
        let Self { features, modelled, rows, capacity, tile, .. } = self;
        let label = format!("{rows} of {capacity} rows, {modelled} of {features}, {tile}:");
        let mut parameters = vec![POISON; self.total()];
        let square = modelled * modelled;
        let inner = [self.within(false), self.within(true), vec![true; 2 * modelled]].concat();
        for (at, _) in inner.iter().enumerate().filter(|(_, read)| **read) {
            parameters[BEFORE + at] = self.parameters[at].to_bits();
        }
        assert_eq!(inner.len(), 2 * square + 2 * modelled);
        Call::new(label, uniform, groups)
            .record("extent", &uniforms::Extent { rows: *rows as u32, first: 9 })
            .bind("parameters", parameters)
    }

    /// Rows times a triangle, whose weights are those of `matrix`, or its transpose.
    fn product<R: Real>(&self, values: &[f32], matrix: impl Fn(&Lu<R>, usize, usize) -> R) -> Vec<R> {
        let (parameters, values) = (real::<R>(&self.parameters), real::<R>(values));
        let lu = Lu::new(&parameters, self.modelled);
        let size = self.modelled;
        let mut result = vec![R::zero(); values.len()];
        for (result, row) in result.chunks_exact_mut(self.features).zip(values.chunks_exact(self.features)) {
            for (i, result) in result.iter_mut().enumerate().take(size) {
                *result = (0..size).fold(R::zero(), |sum, j| matrix(&lu, i, j).mul_add(row[j], sum));
            }
        }
        result
    }

    /// Gradients times a triangle.
    fn transposed_product<R: Real>(&self, upper: bool) -> Vec<R> {
        self.product(&self.others, |lu, i, j| if upper { lu.u(j, i) } else { lu.l(j, i) })
    }

    /// `sign` times log_diagonal at modelled features, on top of what there is or alone.
    fn with_log_dets<R: Real>(&self, sign: R) -> Vec<R> {
        let [_, _, log_diagonal, _] = self.starts();
        let log_diagonal = real::<R>(&self.parameters[log_diagonal - BEFORE..][..self.modelled]);
        let mut log_dets =
            if self.begins { vec![R::zero(); self.log_dets.len()] } else { real(&self.log_dets) };
        for row in log_dets.chunks_exact_mut(self.features) {
            row.iter_mut().zip(&log_diagonal).for_each(|(log_det, &value)| *log_det += sign * value);
        }
        log_dets
    }

    fn expect_log_dets(&self, call: Call, sign: f64) -> Call {
        let columns = if self.begins { vec![true; self.features] } else { self.modelled_columns() };
        let before = if self.begins { vec![] } else { self.log_dets.clone() };
        call.values("log_dets", &before, self.capacity * self.features).expect(
            "",
            self.places(&columns),
            pick(&self.with_log_dets::<f64>(sign), &columns),
            &pick(&self.with_log_dets::<f32>(sign as f32), &columns),
        )
    }

    fn forward_call(&self, upper: bool) -> Call {
        let size = self.capacity * self.features;
        let groups = [self.tile.across(self.modelled), self.tile.down(self.capacity), 1];
        let modelled = self.modelled_columns();
        let call = self
            .call(&self.uniform(upper), groups)
            .constants(&self.constants(upper))
            .bind("source", self.columns(&self.values, &modelled))
            .bind("destination", vec![POISON; size]);
        let (places, rows) = (self.places(&modelled), self.columns(&self.others, &self.context_columns()));
        if upper {
            let truth = pick(&self.product::<f64>(&self.values, |lu, i, j| lu.u(i, j)), &modelled);
            let single = pick(&self.product::<f32>(&self.values, |lu, i, j| lu.u(i, j)), &modelled);
            return self.expect_log_dets(
                call.expect("y", places, truth, &single).bind("rows", vec![POISON; size]),
                1.0,
            );
        }
        let context = self.context_columns();
        call.expect(
            "z",
            places,
            pick(&self.shifted::<f64>(), &modelled),
            &pick(&self.shifted::<f32>(), &modelled),
        )
        .expect_bits("context", self.places(&context), bits(&pick(&self.others, &context)))
        .bind("rows", rows)
        .bind("log_dets", vec![POISON; size])
    }

    /// L · y + bias.
    fn shifted<R: Real>(&self) -> Vec<R> {
        let [.., bias] = self.starts();
        let bias = real::<R>(&self.parameters[bias - BEFORE..]);
        let mut z = self.product::<R>(&self.values, |lu, i, j| lu.l(i, j));
        for row in z.chunks_exact_mut(self.features) {
            row.iter_mut().zip(&bias).for_each(|(z, &bias)| *z += bias);
        }
        z
    }

    fn inverted<R: Real>(&self) -> Vec<R> {
        let parameters = real::<R>(&self.parameters);
        let mut x = real::<R>(&self.values);
        for row in x.chunks_exact_mut(self.features) {
            Lu::new(&parameters, self.modelled).inverse(&mut row[..self.modelled]);
        }
        x
    }

    fn inverse_call(&self) -> Call {
        let size = self.capacity * self.features;
        let (modelled, context) = (self.modelled_columns(), self.context_columns());
        let call = self
            .call(&self.uniform(false), grid(self.capacity.div_ceil(64)))
            .enlarging(16.0)
            .values("rows", &self.values, size)
            .bind("destination", vec![POISON; size])
            .expect(
                "x",
                self.places(&modelled),
                pick(&self.inverted::<f64>(), &modelled),
                &pick(&self.inverted::<f32>(), &modelled),
            )
            .expect_bits("context", self.places(&context), bits(&pick(&self.values, &context)));
        self.expect_log_dets(call, -1.0)
    }

    /// The gradients of a triangle and of what lies beside it, of some rows: of U before its diagonal.
    fn parameter_gradients<R: Real>(&self, upper: bool, source: &[f32], rows: Range<usize>) -> [Vec<R>; 2] {
        let (size, features) = (self.modelled, self.features);
        let parameters = real::<R>(&self.parameters);
        let lu = Lu::new(&parameters, size);
        let (source, d_y) = (real::<R>(source), real::<R>(&self.others));
        let (mut matrix, mut beside) = (vec![R::zero(); size * size], vec![R::zero(); size]);
        let factors = self.factor.of::<R>(self.rows);
        for row in rows {
            for i in 0..size {
                let d = d_y[row * features + i];
                for j in 0..size {
                    matrix[i * size + j] = d.mul_add(source[row * features + j], matrix[i * size + j]);
                }
                let each = factors[row];
                beside[i] += if upper { d * source[row * features + i] * lu.u(i, i) - each } else { d };
            }
        }
        [matrix, beside]
    }

    fn backward_call(&self, upper: bool, passes: bool, first: bool) -> Call {
        let size = self.capacity * self.features;
        let modelled = self.modelled_columns();
        let before = Before::new(self.rows, self.features, self.modelled, 77);
        let before = Before { factor: self.factor, ..before };
        let input_groups = self.tile.across(self.modelled) * self.tile.down(self.capacity);
        let input_groups = if first { 0 } else { input_groups };
        let weight_groups =
            self.tile.across(self.modelled) * self.tile.down(self.modelled) * self.splits as u32;
        let uniforms::Layer { through, through_bound, factors, .. } = before.uniform(self.capacity);
        let uniform =
            uniforms::Layer { input_groups, through, through_bound, factors, ..self.uniform(upper) };
        let mut constants = self.constants(upper);
        constants.extend([("THROUGH", u32::from(passes)), self.factor.constant()]);
        let call = self
            .call(&uniform, grid((input_groups + weight_groups) as usize))
            .constants(&constants)
            .bind("order", order(&[&before.mask]))
            .bind("source", self.columns(&before.z, &modelled))
            .bind("saved", if passes { poisoned(&before.raw, size) } else { vec![POISON; 4] })
            .bind("d_output", self.columns(&self.others, &modelled));
        // The gradient at the context is there, and stays.
        let held = self.columns(&self.log_dets, &self.context_columns());
        let call = if first {
            let others = vec![POISON; 2 * size];
            let tail = self.factor.tail(self.rows, self.capacity);
            call.bind("d_coupling", [held, others, tail].concat())
        } else {
            let truth = self.transposed_product::<f64>(upper);
            let single = self.transposed_product::<f32>(upper);
            before.expect(call, passes, (self.capacity, self.modelled), held, (&truth, &single))
        };
        self.expect_partials(call, upper, &before.z)
    }

    fn expect_partials(&self, call: Call, upper: bool, source: &[f32]) -> Call {
        let mut call = call.bind("partials", vec![POISON; self.splits * self.total()]);
        if self.factor == Factor::Score {
            return call;
        }
        let [lower_at, upper_at, log_diagonal, bias] = self.starts();
        let (matrix, beside) = if upper { (upper_at, log_diagonal) } else { (lower_at, bias) };
        let per_split = self.capacity.div_ceil(self.splits);
        let within = self.within(upper);
        for split in 0..self.splits {
            let rows = (split * per_split).min(self.rows)..((split + 1) * per_split).min(self.rows);
            let truth = self.parameter_gradients::<f64>(upper, source, rows.clone());
            let single = self.parameter_gradients::<f32>(upper, source, rows);
            let base = split * self.total();
            let square: Vec<usize> = (0..within.len()).map(|at| base + matrix + at).collect();
            call = call
                .expect(
                    &format!("triangle of split {split}"),
                    pick(&square, &within),
                    pick(&truth[0], &within),
                    &pick(&single[0], &within),
                )
                .expect(
                    &format!("beside it of split {split}"),
                    base + beside..base + beside + self.modelled,
                    truth[1].clone(),
                    &single[1],
                );
        }
        call
    }
}

pub fn lu_forward() -> Case {
    let calls = [true, false].into_iter().flat_map(|upper| Setup::all().map(move |s| s.forward_call(upper)));
    Case {
        kernel: &LU_FORWARD,
        factor: 4.0,
        calls: calls.collect(),
        changes: &[
            ("return select(0.0, parameters[at], in_triangle(out, k));", "return parameters[at];"),
            ("if out != k {", "if true {"),
            ("(k > out) == (UPPER == 1u);", "(k > out) == (UPPER == 0u);"),
            ("return layer.weight + out * layer.inputs;", "return layer.weight + out;"),
            ("return exp_accurate(parameters[layer.bias + out]);", "return 1.0;"),
            ("destination[index] = values[j] + beside;", "destination[index] = values[j];"),
            ("add_log_det(index, beside);", "add_log_det(index, -beside);"),
            ("destination[index] = rows[index];", ""),
            ("pass_log_det(index);", ""),
            ("row < extent.rows && out < layer.outputs", "row < layer.capacity && out < layer.outputs"),
            ("layer.features + layer.modelled + i % context", "layer.features + i % context"),
            ("return row * layer.features;", "return row * layer.modelled;"),
            ("if group.x == 0u {", "if false {"),
        ],
    }
}

pub fn lu_inverse() -> Case {
    Case {
        kernel: &LU_INVERSE,
        factor: 4.0,
        // It has no tiles.
        calls: Setup::all().take(SIZES.len()).map(|setup| setup.inverse_call()).collect(),
        changes: &[
            ("- parameters[bias + i] - known", "+ parameters[bias + i] - known"),
            ("j < i; j++", "j < i; j += 2u"),
            ("var j = left; j < size", "var j = left; j + 1u < size"),
            ("exp_accurate(-diagonal)", "exp_accurate(diagonal)"),
            ("add_log_det(first + i, -diagonal);", "add_log_det(first + i, diagonal);"),
            ("let upper = layer.weight + size * size;", "let upper = layer.weight;"),
            ("if row >= extent.rows {", "if row >= layer.capacity {"),
            ("pass_log_det(first + i);", ""),
            ("destination[first + i] = rows[first + i];", ""),
        ],
    }
}

pub fn lu_backward() -> Case {
    use Factor::{Mean, Score, Weighted};
    let forms = [
        (Mean, true, true, false),
        (Mean, false, false, false),
        (Mean, true, false, false),
        (Weighted, true, false, true),
        (Weighted, true, true, false),
        (Score, true, true, false),
        (Score, false, false, false),
    ];
    // Where rows count alike, every form has every tile; factors of rows have nothing to do with tiles.
    let calls = forms.into_iter().flat_map(|(factor, upper, passes, first)| {
        let tiles = if factor == Mean { TRIED.len() } else { 1 };
        let setups = Setup::all().take(tiles * SIZES.len());
        setups.map(move |setup| Setup { factor, ..setup }.backward_call(upper, passes, first))
    });
    Case {
        kernel: &LU_BACKWARD,
        factor: 8.0,
        calls: calls.collect(),
        changes: &[
            ("+ out]) - factors;", "+ out]);"),
            ("value * exp_accurate(", "value + (1.0 - value) * exp_accurate("),
            ("factors += row_factor(row);", "factors += row_factor(begin);"),
            ("row = begin; row < end", "row = 0u; row < end"),
            ("        return 0u;\n    }\n    let tiles_x", "    }\n    let tiles_x"),
            ("if UPPER == 0u {", "if true {"),
            ("else if UPPER == 1u && out == k", "else if UPPER == 1u"),
            ("else if UPPER == 1u && out == k", "else if out == k"),
            ("return input_rows(network, row);", "return input_rows(network, row + 1u);"),
            ("let base = split * layer.parameters;", "let base = 0u;"),
            (
                "pass_through(row, column + j, values[j]);",
                "d_coupling[row * layer.features + column + j] = values[j];",
            ),
            ("return exp_accurate(parameters[layer.bias + out]);", "return 1.0;"),
            ("number - layer.input_groups < weight_groups()", "number < weight_groups()"),
        ],
    }
}
