//! Shapes of the tiles in which matrix products are made: data, from which a kernel is compiled for each dispatch.
//! A plan takes each layer's tile from a [`Tiling`]; `shaders/layered/tile.wgsl` says what the numbers mean.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::kernel::{
    COUPLING_FORWARD, COUPLING_INVERSE, Constant, FIRST_LAYER_BACKWARD, LINEAR_BACKWARD, LU_BACKWARD,
};
use super::target::Target;

/// The tile of a matrix product that one workgroup makes, and how its threads share it. No choice changes a bit of
/// the result: every element is summed over increasing depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tile {
    /// Rows of the tile.
    pub rows: u32,
    /// Columns of the tile.
    pub columns: u32,
    /// Depth that lies in workgroup memory at a time.
    pub depth: u32,
    /// Rows that a thread holds: 1, 4 or 8.
    pub block_rows: u32,
    /// Columns that a thread holds: 4 or 8.
    pub block_columns: u32,
}

impl Tile {
    /// A tile of `rows` × `columns`, `depth` deep, in blocks of `block_rows` × `block_columns`.
    const fn new([rows, columns, depth]: [u32; 3], [block_rows, block_columns]: [u32; 2]) -> Self {
        Self { rows, columns, depth, block_rows, block_columns }
    }

    /// The tile on a software adapter: as wide as a thin layer, so that few threads stand idle, and as much work for a
    /// thread as a wide one has.
    fn for_software(columns: usize, depth: usize) -> Self {
        let depth = match depth {
            0..=4 => 4,
            5..=8 => 8,
            _ => 16,
        };
        match columns {
            0..=4 => Self::new([64, 4, depth], [1, 4]),
            5..=8 => Self::new([32, 8, depth], [1, 4]),
            9..=16 => Self::new([32, 16, depth], [1, 4]),
            17..=32 => Self::new([64, 32, depth], [4, 4]),
            _ => Self::new([64, 64, depth], [4, 4]),
        }
    }

    /// The tile on a GPU, whose many cores each want a workgroup: the fewer numbers a product has, the smaller its tiles.
    /// A core with few workgroups waits for memory at every step along the depth, so that thin products take long steps.
    /// Measured on an H100 and an H200, on products of 256 × 1 to 65,536 × 256.
    fn for_hardware(rows: usize, columns: usize, depth: usize) -> Self {
        const ENOUGH: usize = 128;

        let tile = match (columns, rows * columns / ENOUGH) {
            (0..=8, _) if rows < 16_384 => Self::new([32, 8, 32], [1, 4]),
            (0..=4, _) => Self::new([64, 4, 16], [1, 4]),
            (5..=8, _) => Self::new([64, 8, 32], [1, 4]),
            (9..=16, _) if rows < 16_384 => Self::new([32, 16, 64], [1, 4]),
            (9..=16, _) => Self::new([128, 16, 16], [4, 4]),
            (_, 0..1024) => Self::new([32, 16, 32], [1, 4]),
            (_, 1024..4096) => Self::new([64, 32, 16], [4, 4]),
            _ => Self::new([64, 64, 16], [8, 4]),
        };
        Self { depth: tile.depth.min(depth.next_power_of_two().max(4) as u32), ..tile }
    }

    /// Threads of a workgroup.
    pub fn threads(&self) -> u32 {
        (self.rows / self.block_rows) * (self.columns / self.block_columns)
    }

    /// Whether kernels can be compiled for it within the limits of every WebGPU adapter.
    pub fn is_portable(&self) -> bool {
        let Self { rows, columns, depth, block_rows, block_columns } = *self;
        // Ranges first, so that nothing below divides by zero or overflows.
        let in_range = [rows, columns, depth].iter().all(|edge| (4..=256).contains(edge) && edge % 4 == 0);
        in_range
            && matches!((block_rows, block_columns), (1 | 4 | 8, 4 | 8))
            && rows.is_multiple_of(block_rows)
            && columns.is_multiple_of(block_columns)
            && (1..=256).contains(&self.threads())
            && self.workgroup_bytes() <= 16 * 1024
            && self.threads().is_multiple_of(rows / 4)
            && self.threads().is_multiple_of(columns / 4)
            && rows.max(columns) * depth / 4 <= 4 * self.threads()
    }

    /// Tiles that cover so many columns.
    pub fn across(&self, columns: usize) -> u32 {
        columns.div_ceil(self.columns as usize) as u32
    }

    /// Tiles that cover so many rows.
    pub fn down(&self, rows: usize) -> u32 {
        rows.div_ceil(self.rows as usize) as u32
    }

    /// Bytes of workgroup memory: both operands, each line one vec4 longer than the tile's edge.
    pub fn workgroup_bytes(&self) -> u32 {
        16 * self.depth * (self.rows / 4 + 1 + self.columns / 4 + 1)
    }

    /// The constants with which a kernel is compiled for it.
    pub fn constants(&self) -> [Constant; 5] {
        [
            ("TILE_ROWS", self.rows),
            ("TILE_COLUMNS", self.columns),
            ("TILE_DEPTH", self.depth),
            ("BLOCK_ROWS", self.block_rows),
            ("BLOCK_COLUMNS", self.block_columns),
        ]
    }
}

/// What a search tries, besides the default: from tiles for thin layers to ones that a thread holds 64 numbers of.
/// All stay within the limits of every WebGPU adapter.
pub const CANDIDATES: [Tile; 17] = [
    Tile::new([64, 64, 16], [4, 4]),
    Tile::new([128, 128, 8], [8, 8]),
    Tile::new([128, 64, 16], [8, 4]),
    Tile::new([64, 128, 16], [4, 8]),
    Tile::new([32, 64, 16], [4, 4]),
    Tile::new([64, 32, 16], [4, 4]),
    Tile::new([32, 32, 16], [4, 4]),
    Tile::new([64, 16, 16], [4, 4]),
    Tile::new([32, 16, 16], [1, 4]),
    Tile::new([32, 8, 16], [1, 4]),
    Tile::new([64, 4, 16], [1, 4]),
    Tile::new([32, 16, 64], [1, 4]),
    Tile::new([32, 8, 32], [1, 4]),
    Tile::new([32, 16, 32], [1, 4]),
    Tile::new([64, 32, 32], [4, 4]),
    Tile::new([128, 32, 16], [4, 8]),
    Tile::new([128, 16, 16], [4, 4]),
];

impl fmt::Display for Tile {
    /// `64×64×16 by 4×4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, columns, depth, block_rows, block_columns } = self;
        write!(f, "{rows}×{columns}×{depth} by {block_rows}×{block_columns}")
    }
}

/// A dispatch of matrix products, as far as the choice of its tile goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Product {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Rows of the batch.
    pub rows: usize,
    /// Inputs that feed the layer.
    pub inputs: usize,
    /// Outputs that leave it.
    pub outputs: usize,
}

impl Product {
    /// Whether it is a backward one, whose tiles have inputs for columns and whose depth is that of two products.
    fn is_backward(&self) -> bool {
        [&FIRST_LAYER_BACKWARD, &LINEAR_BACKWARD, &LU_BACKWARD]
            .iter()
            .any(|kernel| kernel.name == self.kernel)
    }

    /// What is worth measuring for it, the default first: no tile so wide that half of it would be empty, none
    /// so thin that the layer would be cut into more than 16, and of blocks that a thread holds two of, none of 64.
    pub fn candidates(&self, software: bool) -> Vec<Tile> {
        let default = self.default_tile(software);
        let deepest = self.sides().1.next_power_of_two().max(4) as u32;
        let columns = self.sides().0 as u32;
        let holds_two =
            [&COUPLING_FORWARD, &COUPLING_INVERSE].iter().any(|kernel| kernel.name == self.kernel);
        let mut tiles = vec![default];
        for tile in CANDIDATES {
            let tile = Tile { depth: tile.depth.min(deepest), ..tile };
            let fits = tile.columns < 2 * columns.next_power_of_two().max(4) && columns <= 16 * tile.columns;
            let held = tile.block_rows * tile.block_columns;
            if fits && !(holds_two && held > 32) && !tiles.contains(&tile) {
                tiles.push(tile);
            }
        }
        tiles
    }

    /// Columns and depth; of a backward product those of the weight gradient.
    fn sides(&self) -> (usize, usize) {
        if self.is_backward() { (self.inputs, self.rows) } else { (self.outputs, self.inputs) }
    }

    /// The tile where nothing was measured, on a software adapter or a GPU.
    pub fn default_tile(&self, software: bool) -> Tile {
        let (columns, depth) = self.sides();
        if software {
            Tile::for_software(columns, depth)
        } else {
            Tile::for_hardware(self.rows, columns, depth)
        }
    }
}

/// The tile of each product: the default of a kind of device, or what was measured to be faster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    measured: BTreeMap<Product, Tile>,
    /// Taken for every product that was not measured, if there is one.
    only: Option<Tile>,
    software: bool,
}

impl Tiling {
    /// The defaults on `target`.
    pub fn on(target: &Target) -> Self {
        Self { software: target.software, ..Self::default() }
    }

    /// One tile for every product.
    pub fn only(tile: Tile) -> Self {
        Self { only: Some(tile), ..Self::default() }
    }

    /// What is worth measuring for `product`, its default first.
    pub fn candidates(&self, product: &Product) -> Vec<Tile> {
        product.candidates(self.software)
    }

    /// The tile for `product`.
    pub fn tile(&self, product: &Product) -> Tile {
        self.measured
            .get(product)
            .copied()
            .or(self.only)
            .unwrap_or_else(|| product.default_tile(self.software))
    }

    /// Whether the tile for `product` was measured.
    pub fn knows(&self, product: &Product) -> bool {
        self.measured.contains_key(product)
    }

    /// Takes `tile` for `product` from now on.
    pub fn insert(&mut self, product: Product, tile: Tile) {
        self.measured.insert(product, tile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_that_is_ever_taken_fits_every_adapter() {
        for kernel in ["linear_forward", "coupling_forward", "first_layer_backward"] {
            for inputs in [1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 64, 300, 70_000] {
                for outputs in [1, 4, 7, 16, 31, 64, 1000] {
                    for (rows, software) in [(100, true), (100, false), (5_000, false), (1 << 20, false)] {
                        let product = Product { kernel, rows, inputs, outputs };
                        let tiles = product.candidates(software);
                        assert_eq!(tiles[0], product.default_tile(software));
                        for tile in tiles {
                            assert!(tile.is_portable(), "{product:?}: {tile}");
                        }
                    }
                }
            }
        }
        let foreign = |rows, block_rows| Tile { rows, block_rows, ..CANDIDATES[0] };
        for tile in [foreign(0, 4), foreign(64, 0), foreign(64, 2), foreign(128, 4), foreign(u32::MAX, 4)] {
            assert!(!tile.is_portable(), "{tile}");
        }
    }

    #[test]
    fn what_was_measured_goes_before_the_default_for_that_product_alone() {
        let product = |rows| Product { kernel: "linear_forward", rows, inputs: 64, outputs: 64 };
        let mut tiling = Tiling::default();
        tiling.insert(product(256), CANDIDATES[1]);
        assert_eq!(tiling.tile(&product(256)), CANDIDATES[1]);
        assert_eq!(tiling.tile(&product(512)), product(512).default_tile(false));
        assert!(tiling.knows(&product(256)) && !tiling.knows(&product(512)));
    }
}
