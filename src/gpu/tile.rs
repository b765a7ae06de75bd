//! Shapes of the tiles in which matrix products are made: data, from which a kernel is compiled for each dispatch.
//! A plan takes each layer's tile from a [`Tiling`]; `shaders/tile.wgsl` says what the numbers mean.

use std::collections::BTreeMap;
use std::fmt;

use super::kernel::Constant;

/// The tile of a matrix product that one workgroup makes, and how its threads share it. No choice changes a bit of
/// the result: every element is summed over increasing depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// The tile for a product with so many columns, summed over `depth`, where nothing was measured: as wide as a
    /// thin layer, so that few threads stand idle, and as much work for a thread as a wide one has.
    pub fn sound(columns: usize, depth: usize) -> Self {
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

    /// Threads of a workgroup.
    pub fn threads(&self) -> u32 {
        (self.rows / self.block_rows) * (self.columns / self.block_columns)
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
        self.kernel.ends_with("_backward")
    }

    /// The tile where nothing was measured.
    pub fn sound(&self) -> Tile {
        if self.is_backward() {
            Tile::sound(self.inputs, self.rows)
        } else {
            Tile::sound(self.outputs, self.inputs)
        }
    }
}

/// The tile of each product: the sound default, or what was measured to be faster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    measured: BTreeMap<Product, Tile>,
}

impl Tiling {
    /// The tile for `product`.
    pub fn tile(&self, product: &Product) -> Tile {
        self.measured.get(product).copied().unwrap_or_else(|| product.sound())
    }

    /// Takes `tile` for `product` from now on.
    pub fn insert(&mut self, product: Product, tile: Tile) {
        self.measured.insert(product, tile);
    }
}
