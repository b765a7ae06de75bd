// Matrix products of a block of rows in workgroup memory with packed weights.
//
// Equation:  C[r, o] = start[o] + Σ_k A[r, k] · M[k, o], for tiles of rows A and packed matrices M.
// Threads:   those of a team share a product (network.wgsl). A thread makes a block of 4 · ROW_BLOCKS rows ×
//            4 · COLUMN_BLOCKS columns, in named 4 × 4 matrices: a column of `c` is a row's quad, so that four rows of
//            four more k are one product of matrices. A narrow product is cut along its depth into slices, which its
//            readers add up.
// Data:      A in memory, M in packed, C into memory.
// Order:     no barriers; sums run over increasing depth.
// Twin:      src/cpu/reference/linear.rs. Precedes rows.wgsl.

// Modes of results: kept as they are, activated, or multiplied by act' of what they replace, or where gradients have a tile
// more, of the same place of the tile before theirs.
const PLAIN: u32 = 0u;
const ACTIVATED: u32 = 1u;
const SLOPED: u32 = 2u;

const NO_BIAS: u32 = 0xffffffffu;
const NOTHING: u32 = 0xffffffffu;

// What becomes of a product's results: a mode, and how far from each result lies what is added to it in the end, or
// NOTHING. Distances wrap around.
struct Finish {
    mode: u32,
    added: u32,
}

// Four rows of up to sixteen columns.
struct Strip {
    c0: mat4x4<f32>,
    c1: mat4x4<f32>,
    c2: mat4x4<f32>,
    c3: mat4x4<f32>,
}

struct Block {
    r0: Strip,
    r1: Strip,
    r2: Strip,
    r3: Strip,
}

fn activate_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        activate(ACTIVATION, x.x), activate(ACTIVATION, x.y), activate(ACTIVATION, x.z), activate(ACTIVATION, x.w),
    );
}

fn slope_quad(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        activation_slope(ACTIVATION, x.x),
        activation_slope(ACTIVATION, x.y),
        activation_slope(ACTIVATION, x.z),
        activation_slope(ACTIVATION, x.w),
    );
}

// Four quads of memory, `stride` apart.
fn rows_at(at: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(memory[at], memory[at + stride], memory[at + 2u * stride], memory[at + 3u * stride]);
}

// Four quads of weights, `stride` apart.
fn weights_at(at: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(packed[at], packed[at + stride], packed[at + 2u * stride], packed[at + 3u * stride]);
}

// The first `columns` quads, at most COLUMN_BLOCKS, of four rows of weights.
fn weight_strip(at: u32, stride: u32, columns: u32) -> Strip {
    var strip = Strip();
    strip.c0 = weights_at(at, stride);
    if COLUMN_BLOCKS > 1u && columns > 1u {
        strip.c1 = weights_at(at + 1u, stride);
    }
    if COLUMN_BLOCKS > 2u && columns > 2u {
        strip.c2 = weights_at(at + 2u, stride);
    }
    if COLUMN_BLOCKS > 3u && columns > 3u {
        strip.c3 = weights_at(at + 3u, stride);
    }
    return strip;
}

fn strip_product(sum: Strip, matrix: Strip, a: mat4x4<f32>) -> Strip {
    var strip = sum;
    strip.c0 += matrix.c0 * a;
    if COLUMN_BLOCKS > 1u {
        strip.c1 += matrix.c1 * a;
    }
    if COLUMN_BLOCKS > 2u {
        strip.c2 += matrix.c2 * a;
    }
    if COLUMN_BLOCKS > 3u {
        strip.c3 += matrix.c3 * a;
    }
    return strip;
}

// Adds a quad of a block's rows, `stride` apart, times its weights.
fn add_rows(sum: Block, weights: Strip, at: u32, stride: u32) -> Block {
    var block = sum;
    block.r0 = strip_product(block.r0, weights, rows_at(at, stride));
    if ROW_BLOCKS > 1u {
        block.r1 = strip_product(block.r1, weights, rows_at(at + 4u * stride, stride));
    }
    if ROW_BLOCKS > 2u {
        block.r2 = strip_product(block.r2, weights, rows_at(at + 8u * stride, stride));
        block.r3 = strip_product(block.r3, weights, rows_at(at + 12u * stride, stride));
    }
    return block;
}

// A block of rows `stride` apart over `depth` quads, times as many columns of a matrix that is `quads` wide.
fn product(source: u32, stride: u32, depth: u32, matrix: u32, quads: u32, columns: u32, start: Strip) -> Block {
    var block = Block(start, start, start, start);
    let step = 4u * quads;
    var k = 0u;
    if UNROLLED == 4u {
        for (; k + 4u <= depth; k += 4u) {
            let first = matrix + k * step;
            let w0 = weight_strip(first, quads, columns);
            let w1 = weight_strip(first + step, quads, columns);
            let w2 = weight_strip(first + 2u * step, quads, columns);
            let w3 = weight_strip(first + 3u * step, quads, columns);
            block = add_rows(block, w0, source + k, stride);
            block = add_rows(block, w1, source + k + 1u, stride);
            block = add_rows(block, w2, source + k + 2u, stride);
            block = add_rows(block, w3, source + k + 3u, stride);
        }
    }
    for (; k < depth; k++) {
        block = add_rows(block, weight_strip(matrix + k * step, quads, columns), source + k, stride);
    }
    return block;
}

fn put_quad(at: u32, value: vec4<f32>, finish: Finish) {
    var result = value;
    if finish.mode == ACTIVATED {
        result = activate_quad(value);
    } else if finish.mode == SLOPED {
        result = value * slope_quad(memory[at - TO_ACTIVE]);
    }
    if RESIDUAL == 1u && finish.added != NOTHING {
        result += memory[at + finish.added];
    }
    memory[at] = result;
}

fn put_rows(at: u32, stride: u32, rows: mat4x4<f32>, finish: Finish) {
    put_quad(at, rows[0], finish);
    put_quad(at + stride, rows[1], finish);
    put_quad(at + 2u * stride, rows[2], finish);
    put_quad(at + 3u * stride, rows[3], finish);
}

fn put_strip(at: u32, stride: u32, columns: u32, strip: Strip, finish: Finish) {
    put_rows(at, stride, strip.c0, finish);
    if COLUMN_BLOCKS > 1u && columns > 1u {
        put_rows(at + 1u, stride, strip.c1, finish);
    }
    if COLUMN_BLOCKS > 2u && columns > 2u {
        put_rows(at + 2u, stride, strip.c2, finish);
    }
    if COLUMN_BLOCKS > 3u && columns > 3u {
        put_rows(at + 3u, stride, strip.c3, finish);
    }
}

fn put_block(at: u32, stride: u32, columns: u32, block: Block, finish: Finish) {
    put_strip(at, stride, columns, block.r0, finish);
    if ROW_BLOCKS > 1u {
        put_strip(at + 4u * stride, stride, columns, block.r1, finish);
    }
    if ROW_BLOCKS > 2u {
        put_strip(at + 8u * stride, stride, columns, block.r2, finish);
        put_strip(at + 12u * stride, stride, columns, block.r3, finish);
    }
}

// Four rows of a bias.
fn bias_rows(at: u32, inside: bool) -> mat4x4<f32> {
    var bias = vec4<f32>();
    if inside {
        bias = packed[at];
    }
    return mat4x4<f32>(bias, bias, bias, bias);
}

fn bias_strip(at: u32, columns: u32) -> Strip {
    var strip = Strip();
    strip.c0 = bias_rows(at, true);
    if COLUMN_BLOCKS > 1u {
        strip.c1 = bias_rows(at + 1u, columns > 1u);
    }
    if COLUMN_BLOCKS > 2u {
        strip.c2 = bias_rows(at + 2u, columns > 2u);
    }
    if COLUMN_BLOCKS > 3u {
        strip.c3 = bias_rows(at + 3u, columns > 3u);
    }
    return strip;
}

// A product: what it reads, and where its results go.
struct Product {
    // Tile of rows, in quads `depth` to the row.
    source: u32,
    depth: u32,
    // Packed matrix, and how many quads it is wide.
    matrix: u32,
    quads: u32,
    // Packed bias, or NO_BIAS.
    bias: u32,
    destination: u32,
    finish: Finish,
    // Slices into which the depth is cut; each has a destination of its own after the previous one.
    slices: u32,
}

fn multiply(member: u32, task: Product) {
    let across = (task.quads + COLUMN_BLOCKS - 1u) / COLUMN_BLOCKS;
    let items = ROWS / (4u * ROW_BLOCKS) * across;
    let slice_depth = (task.depth + task.slices - 1u) / task.slices;
    for (var item = member; item < task.slices * items; item += TEAM_THREADS) {
        let slice = item / items;
        let quad = item % items % across * COLUMN_BLOCKS;
        let row = item % items / across * (4u * ROW_BLOCKS);
        let begin = min(slice * slice_depth, task.depth);
        let count = min(slice_depth, task.depth - begin);
        let columns = task.quads - quad;
        var start = Strip();
        if task.bias != NO_BIAS {
            start = bias_strip(task.bias + quad, columns);
        }
        let source = task.source + row * task.depth + begin;
        let matrix = task.matrix + 4u * begin * task.quads + quad;
        let block = product(source, task.depth, count, matrix, task.quads, columns, start);
        let destination = task.destination + (slice * ROWS + row) * task.quads + quad;
        put_block(destination, task.quads, columns, block, task.finish);
    }
}
