//! Randomness on the GPU against its twin on the CPU: bit for bit, because both are integer arithmetic.

use moonflow::random::{self, NORMAL_TABLE, Stream};
use wgpu::util::DeviceExt;

const LATENT: &str =
    concat!(include_str!("../../shaders/random.wgsl"), include_str!("../../shaders/latent.wgsl"));
const PERMUTATION: &str =
    concat!(include_str!("../../shaders/random.wgsl"), include_str!("../../shaders/permutation.wgsl"));

/// Calls `normal` on words of the test's choice.
const NORMALS_OF_WORDS: &str = "
@group(0) @binding(3) var<storage, read> words: array<vec2<u32>>;
@compute @workgroup_size(256)
fn normals_of_words(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&words)) {
        latent[id.x] = normal(words[id.x].x, words[id.x].y);
    }
}";

/// What an output buffer holds before the kernel runs.
const POISON: u32 = 0x7FC0_DEAD;

/// The device, or `None` where there is no adapter; `MOONFLOW_REQUIRE_GPU` turns that into a failure.
fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = match pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
    {
        Ok(adapter) => adapter,
        Err(error) => {
            assert!(std::env::var_os("MOONFLOW_REQUIRE_GPU").is_none(), "no adapter: {error}");
            eprintln!("skipped: no adapter: {error}");
            return None;
        }
    };
    Some(pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).expect("a device"))
}

/// Runs `entry` of `text` on a poisoned output of `len` words at binding `output` and reads it back.
fn run(
    (device, queue): &(wgpu::Device, wgpu::Queue),
    (text, entry, groups): (&str, &str, [u32; 2]),
    inputs: &[(u32, wgpu::BufferUsages, &[u8])],
    (output, len): (u32, usize),
) -> Vec<u32> {
    use wgpu::BufferUsages as Usage;
    let buffer = |usage, contents: &[u8]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some(entry), contents, usage })
    };
    let poison = vec![POISON; len];
    let result = buffer(Usage::STORAGE | Usage::COPY_SRC, bytemuck::cast_slice(&poison));
    let read = buffer(Usage::MAP_READ | Usage::COPY_DST, bytemuck::cast_slice(&poison));
    let mut buffers: Vec<_> = inputs.iter().map(|&(at, usage, bytes)| (at, buffer(usage, bytes))).collect();
    buffers.push((output, result.clone()));
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(entry),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module: &module,
        entry_point: Some(entry),
        compilation_options: Default::default(),
        cache: None,
    });
    let entries: Vec<_> = buffers
        .iter()
        .map(|(at, buffer)| wgpu::BindGroupEntry { binding: *at, resource: buffer.as_entire_binding() })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(entry),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
    }
    encoder.copy_buffer_to_buffer(&result, 0, &read, 0, None);
    queue.submit([encoder.finish()]);
    read.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("a mapped buffer"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("a finished queue");
    let view = read.get_mapped_range(..).expect("a mapped range");
    bytemuck::pod_collect_to_vec(&view)
}

/// Both signs of 63-bit numbers at and beside every power of two and every segment's borders, and random words.
fn words(random: u32) -> Vec<[u32; 2]> {
    let mut numbers = vec![0, (1 << 63) - 1];
    for octave in 0..63 {
        for segment in 32u64..64 {
            let start = (segment << 57) >> octave;
            numbers.extend([start.saturating_sub(1), start, start + 1]);
        }
    }
    let mut words: Vec<[u32; 2]> = numbers
        .into_iter()
        .flat_map(|u| [u, u | 1 << 63])
        .map(|bits: u64| [bits as u32, (bits >> 32) as u32])
        .collect();
    for i in 0..random / 2 {
        let [a, b, c, d] = random::philox([i, 0, 0, 77], [1, 2]);
        // The second pair is thinned out, so that high octaves occur.
        words.extend([[a, b], [c, d >> (i % 32)]]);
    }
    words
}

fn normals_of_words(gpu: &(wgpu::Device, wgpu::Queue), table: &[[u32; 4]], words: &[[u32; 2]]) -> Vec<u32> {
    let inputs = [
        (1, wgpu::BufferUsages::STORAGE, bytemuck::cast_slice(table)),
        (3, wgpu::BufferUsages::STORAGE, bytemuck::cast_slice(words)),
    ];
    let text = format!("{LATENT}{NORMALS_OF_WORDS}");
    let groups = words.len().div_ceil(256) as u32;
    run(gpu, (&text, "normals_of_words", [groups, 1]), &inputs, (2, words.len()))
}

/// Where `got` differs from `want`, in words; panics when the lengths do.
fn mismatches(got: &[u32], want: &[u32]) -> Vec<usize> {
    assert_eq!(got.len(), want.len());
    (0..got.len()).filter(|&i| got[i] != want[i]).collect()
}

#[test]
fn normal_has_the_same_bits_on_the_gpu() {
    let Some(gpu) = device() else { return };
    let words = words(100_000);
    let want: Vec<u32> = words.iter().map(|&[low, high]| random::normal(low, high).to_bits()).collect();
    let got = normals_of_words(&gpu, &NORMAL_TABLE, &words);
    let wrong = mismatches(&got, &want);
    let show = |&i: &usize| format!("{:x?}: got {:#x}, want {:#x}", words[i], got[i], want[i]);
    let first: Vec<String> = wrong.iter().take(10).map(show).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), words.len(), first.join("\n"));
}

#[test]
fn normal_on_the_gpu_follows_its_table() {
    let Some(gpu) = device() else { return };
    let words = words(0);
    let want: Vec<u32> = words.iter().map(|&[low, high]| random::normal(low, high).to_bits()).collect();
    for column in 0..4 {
        let mut corrupted = NORMAL_TABLE;
        // In the smallest coefficient this is 2⁻²² of the result at the segment's end, still above its last place.
        corrupted[40][column] ^= 1 << 27;
        let wrong = mismatches(&normals_of_words(&gpu, &corrupted, &words), &want);
        assert!((1..20).contains(&wrong.len()), "column {column}: {} words changed", wrong.len());
    }
}

#[test]
fn latent_noise_has_the_same_bits_on_the_gpu() {
    let Some(gpu) = device() else { return };
    for (rows, features, first_row, seed, temperature, groups) in [
        (1, 1, 0, 0, 1.0, [1, 1]),
        (3, 2, 5, 42, 1.0, [1, 1]),
        (257, 1, 0, u64::MAX, 0.7, [2, 1]),
        (128, 5, 1_000_000, 0x0123_4567_89AB_CDEF, 1.3, [2, 1]),
        (1000, 7, u32::MAX - 10, 1 << 32, 0.0, [3, 6]),
        (1000, 6, 99, 3, 0.8, [5, 3]),
    ] {
        let (rows, features): (u32, u32) = (rows, features);
        let uniform: [u32; 8] = {
            let [low, high] = random::key(seed);
            [rows, features, first_row, low, high, f32::to_bits(temperature), 0, 0]
        };
        let inputs = [
            (0, wgpu::BufferUsages::UNIFORM, bytemuck::cast_slice(&uniform)),
            (1, wgpu::BufferUsages::STORAGE, bytemuck::cast_slice(&NORMAL_TABLE[..])),
        ];
        let len = (rows * features) as usize;
        let got = run(&gpu, (LATENT, "latent_noise", groups), &inputs, (2, len + 8));
        let mut want = vec![POISON; len + 8];
        for (row, out) in want[..len].chunks_mut(features as usize).enumerate() {
            let mut noise = vec![0.0; features as usize];
            random::normals(first_row.wrapping_add(row as u32), seed, &mut noise);
            for (bits, z) in out.iter_mut().zip(noise) {
                *bits = (temperature * z).to_bits();
            }
        }
        assert_eq!(
            mismatches(&got, &want),
            [0usize; 0],
            "{rows} × {features} from row {first_row}, seed {seed}"
        );
    }
}

#[test]
fn permutation_is_the_same_on_the_gpu() {
    let Some(gpu) = device() else { return };
    for (n, stream, step, seed, groups) in [
        (1, Stream::Epoch, 0, 0, [1, 1]),
        (2, Stream::Epoch, 1, 9, [1, 1]),
        (3, Stream::Split, 0, 1 << 40, [1, 1]),
        (5, Stream::Masks, 7, 3, [1, 1]),
        (256, Stream::Epoch, 2, 3, [1, 1]),
        (257, Stream::Epoch, u32::MAX, 3, [2, 1]),
        (4097, Stream::Epoch, 3, u64::MAX, [5, 4]),
        // Only the first places are computed; half the words' bits are 16.
        (3_000_000_000, Stream::Epoch, 0, 5, [2, 1]),
        (u32::MAX, Stream::Epoch, 0, 5, [2, 1]),
    ] {
        let [low, high] = random::key(seed);
        let uniform = [n, stream as u32, step, low, high, 0, 0, 0];
        let inputs = [(0, wgpu::BufferUsages::UNIFORM, bytemuck::cast_slice(&uniform))];
        let computed = n.min(groups[0] * groups[1] * 256);
        let mut want: Vec<u32> = (0..computed).map(|i| random::permute(i, n, seed, stream, step)).collect();
        if computed == n {
            want.extend([POISON; 8]);
        }
        let got = run(&gpu, (PERMUTATION, "permutation", groups), &inputs, (1, want.len()));
        assert_eq!(mismatches(&got, &want), [0usize; 0], "n = {n}");
    }
}

#[test]
fn random_shaders_are_valid_and_their_uniforms_are_packed_words() {
    for (text, entry, uniform) in
        [(LATENT, "latent_noise", "Latent"), (PERMUTATION, "permutation", "Permutation")]
    {
        let module =
            naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{entry}: {}", e.emit_to_string(text)));
        let points: Vec<_> =
            module.entry_points.iter().map(|p| (p.name.as_str(), p.workgroup_size)).collect();
        assert_eq!(points, [(entry, [256, 1, 1])]);
        let (_, kind) =
            module.types.iter().find(|(_, kind)| kind.name.as_deref() == Some(uniform)).expect("struct");
        let naga::TypeInner::Struct { members, span } = &kind.inner else {
            panic!("{uniform} is not a struct")
        };
        assert_eq!(*span, 32);
        assert!(members.iter().map(|member| member.offset).eq((0..32).step_by(4)), "{uniform}");
    }
}
