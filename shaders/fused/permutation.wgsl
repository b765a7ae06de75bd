// A permutation of the modelled features.
//
// Equation:  z_j = x_{permutation[j]}; backwards d_x_{permutation[j]} = d_z_j.
// Threads:   each takes its quads of AT_ROWS.
// Data:      roles: from which feature each comes, and to which each goes; AT_KEPT: the rows before.
// Order:     barriers around what crosses from quad to quad.
// Twin:      src/cpu/permutation.rs

fn permute_rows(local: u32, transform: FusedTransform, inverse: bool) {
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        memory[AT_KEPT + quad] = memory[AT_ROWS + quad];
    }
    workgroupBarrier();
    for (var quad = local; quad < ROW_QUADS; quad += THREADS) {
        let row = AT_KEPT + quad / QUADS * QUADS;
        let sources = roles[transform.roles + select(0u, QUADS, inverse) + quad % QUADS];
        memory[AT_ROWS + quad] = vec4<f32>(
            memory[row + sources.x / 4u][sources.x % 4u],
            memory[row + sources.y / 4u][sources.y % 4u],
            memory[row + sources.z / 4u][sources.z % 4u],
            memory[row + sources.w / 4u][sources.w % 4u],
        );
    }
    workgroupBarrier();
}
