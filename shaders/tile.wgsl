// A 64 × 64 tile of a matrix product by 16 × 16 threads, each holding a 4 × 4 block in four named vec4 accumulators
// (an indexed array of accumulators would be spilled). Operand tiles are 16 deep, in workgroup memory, as vec4 along
// the tile's edge; a line of 17 vec4 keeps the strided stores free of bank conflicts.

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const LINE: u32 = 17u;

var<workgroup> tile_a: array<vec4<f32>, 272>;
var<workgroup> tile_b: array<vec4<f32>, 272>;

struct Block {
    row0: vec4<f32>,
    row1: vec4<f32>,
    row2: vec4<f32>,
    row3: vec4<f32>,
}

// Adds the first `depth` outer products of the two operand tiles, in order of depth, to the block at (column quad tx,
// row quad ty). Thin layers fill only a part of a tile's depth.
fn multiply_tiles(block: Block, tx: u32, ty: u32, depth: u32) -> Block {
    var sum = block;
    for (var k = 0u; k < depth; k++) {
        let a = tile_a[k * LINE + ty];
        let b = tile_b[k * LINE + tx];
        sum.row0 += a.x * b;
        sum.row1 += a.y * b;
        sum.row2 += a.z * b;
        sum.row3 += a.w * b;
    }
    return sum;
}

fn block_row(block: Block, i: u32) -> vec4<f32> {
    return select(
        select(block.row0, block.row1, i == 1u),
        select(block.row2, block.row3, i == 3u),
        i >= 2u,
    );
}
