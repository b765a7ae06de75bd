// Where a parameter lies in the fused plan's layout; library text that reads the uniform `fused`.
// Follows fused_layout.wgsl.

struct Places {
    network: u32,
    // Index among a network's packed values; a slot of gradients has the natural one alone.
    natural: u32,
    // The same as `natural` for a bias.
    transposed: u32,
}

fn places_of(p: u32) -> Places {
    let network = p / fused.network_stride;
    let place = p % fused.network_stride;
    var layer = fused.depth - 1u;
    while place < fused.spans[layer].weight {
        layer--;
    }
    let span = fused.spans[layer];
    let index = place - span.weight;
    if index >= span.outputs * span.inputs {
        let bias = 4u * span.bias + index - span.outputs * span.inputs;
        return Places(network, bias, bias);
    }
    let out = index / span.inputs;
    let column = index % span.inputs;
    return Places(
        network,
        4u * (span.natural + out * span.input_quads) + column,
        4u * (span.transposed + column * span.output_quads) + out,
    );
}
