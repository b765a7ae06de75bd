//! The dispatches of an LU layer: a product with each of its triangles, forward and backward. The inverse is one.

use super::super::kernel::{Constant, Kernel, LU_BACKWARD, LU_FORWARD, LU_INVERSE};
use super::super::plan::{BufferId, Dispatch, Program, grid};
use super::super::tile::{Product, Tile};
use super::super::uniforms;
use super::{Cost, Direction, Recorder, TransformBackward, TransformPass};

/// One of the two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Triangle {
    /// U and log_diagonal.
    Upper,
    /// L and bias.
    Lower,
}

impl Recorder<'_> {
    /// What the kernels of a triangle are told, and the weights in use.
    fn triangle(&self, transform: usize, triangle: Triangle) -> (uniforms::Layer, usize) {
        let size = self.flow.modelled();
        let square = size * size;
        let start = self.layout.blocks[transform].range.start;
        let [weight, beside] = match triangle {
            Triangle::Lower => [0, 2 * square + size],
            Triangle::Upper => [square, 2 * square],
        };
        let uniform = uniforms::Layer {
            inputs: size as u32,
            outputs: size as u32,
            weight: (start + weight) as u32,
            bias: (start + beside) as u32,
            ..self.uniform(transform)
        };
        (uniform, size * (size - 1) / 2)
    }

    fn triangle_tile(&self, kernel: &Kernel) -> Tile {
        let size = self.flow.modelled();
        let rows = self.shared.capacity;
        self.tiling.tile(&Product { kernel: kernel.name, rows, inputs: size, outputs: size })
    }

    fn triangle_constants(triangle: Triangle, tile: Tile) -> Vec<Constant> {
        let upper = u32::from(triangle == Triangle::Upper);
        [&[("NETWORKS", 1), ("UPPER", upper)][..], &tile.constants()].concat()
    }

    fn triangle_label(transform: usize, triangle: Triangle, tile: Tile) -> String {
        let name = if triangle == Triangle::Upper { "upper" } else { "lower" };
        format!("transforms.{transform} {name}, {tile}")
    }

    pub(super) fn lu_rows(&self, program: &mut Program, pass: &TransformPass) {
        if pass.direction == Direction::Inverse {
            program.dispatches.push(self.lu_inverse(pass));
            return;
        }
        let between = pass.stored.between.expect("invariant: an LU layer stores what U yields");
        program.dispatches.push(self.lu_forward(pass, Triangle::Upper, [pass.source, between]));
        program.dispatches.push(self.lu_forward(pass, Triangle::Lower, [between, pass.destination]));
    }

    fn lu_forward(
        &self,
        pass: &TransformPass,
        triangle: Triangle,
        [source, destination]: [BufferId; 2],
    ) -> Dispatch {
        let shared = &self.shared;
        let (rows, features, size) = (shared.capacity, self.flow.features, self.flow.modelled());
        let (uniform, weights) = self.triangle(pass.transform, triangle);
        let tile = self.triangle_tile(&LU_FORWARD);
        let others = match triangle {
            Triangle::Upper if pass.begins => features,
            Triangle::Upper => 2 * size,
            Triangle::Lower => 2 * (features - size),
        };
        Self::untiled(
            &LU_FORWARD,
            Self::triangle_label(pass.transform, triangle, tile),
            Self::triangle_constants(triangle, tile),
            &uniforms::Layer { begins: u32::from(pass.begins), ..uniform },
            vec![shared.extent, shared.parameters, source, pass.source, destination, shared.log_dets],
            [tile.across(size), tile.down(rows), 1],
            Cost {
                flops: rows * (2 * weights + 2 * size),
                words: rows * (2 * size + others) + weights + size,
            },
        )
    }

    fn lu_inverse(&self, pass: &TransformPass) -> Dispatch {
        let shared = &self.shared;
        let (rows, features, size) = (shared.capacity, self.flow.features, self.flow.modelled());
        let (lower, weights) = self.triangle(pass.transform, Triangle::Lower);
        let summed = if pass.begins { features } else { 2 * size };
        Self::untiled(
            &LU_INVERSE,
            format!("transforms.{} lu", pass.transform),
            Vec::new(),
            &uniforms::Layer { begins: u32::from(pass.begins), ..lower },
            vec![shared.extent, shared.parameters, pass.source, pass.destination, shared.log_dets],
            grid(rows.div_ceil(64)),
            Cost {
                flops: rows * (4 * weights + 14 * size),
                words: rows * (2 * features + summed) + 2 * (weights + size),
            },
        )
    }

    /// Leaves the gradient where it was.
    pub(super) fn lu_backward(&self, program: &mut Program, pass: &TransformBackward) {
        let between = pass.stored.between.expect("invariant: an LU layer stores what U yields");
        let d_between = pass.gradients.d_between.expect("invariant: allocated for LU layers");
        let [input, _] = pass.rows;
        let lower = self.triangle_backward(pass, Triangle::Lower, between, [pass.d_coupling, d_between]);
        let upper = self.triangle_backward(pass, Triangle::Upper, input, [d_between, pass.d_coupling]);
        program.dispatches.extend([lower, upper]);
    }

    /// From the gradient at a product that at its operand.
    fn triangle_backward(
        &self,
        pass: &TransformBackward,
        triangle: Triangle,
        source: BufferId,
        [d_output, d_input]: [BufferId; 2],
    ) -> Dispatch {
        let shared = &self.shared;
        let (rows, size, transform) = (shared.capacity, self.flow.modelled(), pass.transform);
        let splits = self.splits(pass.gradients);
        let (uniform, weights) = self.triangle(transform, triangle);
        let tile = self.triangle_tile(&LU_BACKWARD);
        let product = 2 * rows * (weights + size);
        let summed = if splits > 0 { product } else { 0 };
        let mut cost = Cost { flops: summed, words: 2 * rows * size + splits * (weights + size) };
        let mut constants = Self::triangle_constants(triangle, tile);
        let mut input_groups = tile.across(size) * tile.down(rows);
        let (mut saved, mut passed) = (source, [0, 0]);
        match triangle {
            Triangle::Lower => constants.extend([self.differentiated(), ("THROUGH", 0)]),
            Triangle::Upper => {
                constants.extend(self.through(transform));
                saved = self.saved(transform, pass.before, source);
                passed = self.passed(transform);
                if !self.wants_input_gradient(transform) {
                    input_groups = 0;
                }
            }
        }
        if input_groups > 0 {
            cost.flops += product + rows * passed[0] * passed[1];
            cost.words += rows * (size + 3 * passed[0]) + weights + size;
        }
        let weight_groups = tile.across(size) as usize * tile.down(size) as usize * splits;
        let rows_per_split = pass.gradients.rows_per_split as u32;
        let label = Self::triangle_label(transform, triangle, tile);
        let uniform = uniforms::Layer { input_groups, rows_per_split, ..uniform };
        let buffers = vec![
            shared.extent,
            shared.parameters,
            source,
            shared.order,
            d_output,
            pass.gradients.partials,
            saved,
            d_input,
        ];
        let groups = grid(input_groups as usize + weight_groups);
        Self::untiled(&LU_BACKWARD, label, constants, &uniform, buffers, groups, cost)
    }
}
