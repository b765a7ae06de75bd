// A tile of a matrix product, TILE_ROWS × TILE_COLUMNS, made TILE_DEPTH deep at a time by one workgroup. A thread holds
// BLOCK_ROWS (1, 4 or 8) × BLOCK_COLUMNS (4 or 8) of it in named vec4 accumulators: an indexed array of accumulators
// would be spilled. The host chooses these five constants for each dispatch (src/gpu/tile.rs). Whatever they are, an
// element is the sum over increasing depth, so its bits do not depend on them.
//
// Operand tiles lie in workgroup memory as vec4 along the tile's edge; a line is one vec4 longer than the edge, which keeps
// the strided stores free of bank conflicts. Beyond the matrix's depth they are zero. Beyond an edge they hold what happens to
// be there: it goes into rows and columns of the product that nobody reads.
//
// An operand's number lies at the sum of a place that its edge tells and one that its depth tells. A thread finds the former
// once, before it goes along the depth.

const THREADS_X: u32 = TILE_COLUMNS / BLOCK_COLUMNS;
const THREADS: u32 = THREADS_X * (TILE_ROWS / BLOCK_ROWS);
const QUADS_A: u32 = TILE_ROWS / 4u;
const QUADS_B: u32 = TILE_COLUMNS / 4u;
const LINE_A: u32 = QUADS_A + 1u;
const LINE_B: u32 = QUADS_B + 1u;
// Parts of a line that a thread of 8 rows or columns takes one quad of each.
const HALF_A: u32 = QUADS_A / 2u;
const HALF_B: u32 = QUADS_B / 2u;
const ROW_HALVES: u32 = (BLOCK_ROWS + 3u) / 4u;
const COLUMN_HALVES: u32 = BLOCK_COLUMNS / 4u;
const ROWS_OF_HALF: u32 = min(BLOCK_ROWS, 4u);

// Quads of an operand's tile that a thread brings, and whether every thread brings as many.
const ITEMS_A: u32 = TILE_DEPTH * QUADS_A;
const ITEMS_B: u32 = TILE_DEPTH * QUADS_B;
const LOADS_A: u32 = (ITEMS_A + THREADS - 1u) / THREADS;
const LOADS_B: u32 = (ITEMS_B + THREADS - 1u) / THREADS;
const EVEN_A: bool = ITEMS_A % THREADS == 0u;
const EVEN_B: bool = ITEMS_B % THREADS == 0u;

var<workgroup> tile_a: array<vec4<f32>, TILE_DEPTH * LINE_A>;
var<workgroup> tile_b: array<vec4<f32>, TILE_DEPTH * LINE_B>;

struct Block {
    row0: vec4<f32>,
    row1: vec4<f32>,
    row2: vec4<f32>,
    row3: vec4<f32>,
}

// A thread's part of a tile; what its block has no use for is never touched and so costs nothing.
struct Tile {
    upper_left: Block,
    upper_right: Block,
    lower_left: Block,
    lower_right: Block,
}

// Where an item of an operand's tile lies, depth and quad of the edge, where neighbours follow each other along the depth.
fn along_depth(item: u32) -> vec2<u32> {
    return vec2<u32>(item % TILE_DEPTH, item / TILE_DEPTH);
}

// The same where neighbours follow each other along an edge of so many quads, which is a divisor of THREADS: all items of a
// thread have the same place on it.
fn along_edge(item: u32, quads: u32) -> vec2<u32> {
    return vec2<u32>(item / quads, item % quads);
}

fn put_a(place: vec2<u32>, quad: vec4<f32>) {
    tile_a[place.x * LINE_A + place.y] = quad;
}

fn put_b(place: vec2<u32>, quad: vec4<f32>) {
    tile_b[place.x * LINE_B + place.y] = quad;
}

fn add_outer(block: Block, a: vec4<f32>, b: vec4<f32>) -> Block {
    return Block(block.row0 + a.x * b, block.row1 + a.y * b, block.row2 + a.z * b, block.row3 + a.w * b);
}

fn add_step(tile: Tile, tx: u32, ty: u32, k: u32) -> Tile {
    var sum = tile;
    let left = tile_b[k * LINE_B + tx];
    if BLOCK_ROWS == 1u {
        let a = tile_a[k * LINE_A + ty / 4u][ty % 4u];
        sum.upper_left.row0 += a * left;
        if BLOCK_COLUMNS == 8u {
            sum.upper_right.row0 += a * tile_b[k * LINE_B + HALF_B + tx];
        }
        return sum;
    }
    let upper = tile_a[k * LINE_A + ty];
    sum.upper_left = add_outer(sum.upper_left, upper, left);
    if BLOCK_COLUMNS == 8u {
        sum.upper_right = add_outer(sum.upper_right, upper, tile_b[k * LINE_B + HALF_B + tx]);
    }
    if BLOCK_ROWS == 8u {
        let lower = tile_a[k * LINE_A + HALF_A + ty];
        sum.lower_left = add_outer(sum.lower_left, lower, left);
        if BLOCK_COLUMNS == 8u {
            sum.lower_right = add_outer(sum.lower_right, lower, tile_b[k * LINE_B + HALF_B + tx]);
        }
    }
    return sum;
}

// Adds the first `depth` outer products of the operand tiles, and up to three more of zeros, for the steps are
// unrolled by four.
fn multiply_tiles(tile: Tile, tx: u32, ty: u32, depth: u32) -> Tile {
    var sum = tile;
    for (var k = 0u; k < depth; k += 4u) {
        sum = add_step(sum, tx, ty, k);
        sum = add_step(sum, tx, ty, k + 1u);
        sum = add_step(sum, tx, ty, k + 2u);
        sum = add_step(sum, tx, ty, k + 3u);
    }
    return sum;
}

// Row within the tile of a thread's row `i` in the half `half`.
fn tile_row(ty: u32, half: u32, i: u32) -> u32 {
    return 4u * half * HALF_A + ROWS_OF_HALF * ty + i;
}

// First of the four columns within the tile that a thread holds in the half `half`.
fn tile_column(tx: u32, half: u32) -> u32 {
    return 4u * (half * HALF_B + tx);
}

fn block_row(block: Block, i: u32) -> vec4<f32> {
    return select(select(block.row0, block.row1, i == 1u), select(block.row2, block.row3, i == 3u), i >= 2u);
}

// Row `i` of a thread's half block.
fn tile_values(tile: Tile, row_half: u32, i: u32, column_half: u32) -> vec4<f32> {
    if BLOCK_ROWS == 8u && row_half == 1u {
        if BLOCK_COLUMNS == 8u && column_half == 1u {
            return block_row(tile.lower_right, i);
        }
        return block_row(tile.lower_left, i);
    }
    if BLOCK_COLUMNS == 8u && column_half == 1u {
        return block_row(tile.upper_right, i);
    }
    return block_row(tile.upper_left, i);
}
