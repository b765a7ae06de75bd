//! Rust and WGSL agree: every shader validates, and structs, bindings and entry points are what the host believes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use moonflow::flow::ConditionerForm::{Joint, Residual, Separate};
use moonflow::flow::{Activation, Base, Flow};
use moonflow::gpu::Target;
use moonflow::gpu::fused::Shape;
use moonflow::gpu::kernel::{
    Access, Constant, FUSED_FORWARD, FUSED_GRADIENT, FUSED_INVERSE, FUSED_SAMPLE, KERNELS, Kernel,
};
use moonflow::gpu::uniforms;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::common::root;

fn parse(source: &str, name: &str) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    (module, info)
}

/// Constants that choose each of a kernel's base densities in turn.
fn fillings(kernel: &Kernel) -> Vec<Vec<Constant>> {
    if kernel.constants.iter().any(|(constant, _)| *constant == "BASE") {
        return [0, 1].map(|base| vec![("BASE", base)]).into();
    }
    vec![Vec::new()]
}

/// What an entry point really uses: number, variable and access, in order of number.
fn bindings_used(kernel: &Kernel, constants: &[Constant]) -> Vec<(u32, String, Access)> {
    let (module, info) = parse(&kernel.specialised(constants), kernel.name);
    let index = module
        .entry_points
        .iter()
        .position(|entry| entry.name == kernel.name)
        .unwrap_or_else(|| panic!("{}: no such entry point", kernel.name));
    let used = info.get_entry_point(index);
    let mut bindings: Vec<_> = module
        .global_variables
        .iter()
        .filter(|(handle, variable)| variable.binding.is_some() && !used[*handle].is_empty())
        .map(|(_, variable)| {
            let binding = variable.binding.as_ref().expect("filtered");
            assert_eq!(binding.group, 0, "{}: all bindings are in group 0", kernel.name);
            let access = match variable.space {
                naga::AddressSpace::Uniform => Access::Uniform,
                naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                    Access::ReadWrite
                }
                naga::AddressSpace::Storage { .. } => Access::Read,
                space => panic!("{}: unexpected address space {space:?}", kernel.name),
            };
            (binding.binding, variable.name.clone().unwrap_or_default(), access)
        })
        .collect();
    bindings.sort_by_key(|binding| binding.0);
    bindings
}

#[test]
fn bindings_of_the_kernel_table_are_those_that_each_entry_point_uses() {
    for kernel in KERNELS {
        let table: Vec<_> =
            kernel.bindings.iter().map(|b| (b.number, b.name.to_string(), b.access)).collect();
        for filling in fillings(kernel) {
            assert_eq!(table, bindings_used(kernel, &filling), "{} {filling:?}", kernel.name);
        }
    }
}

#[test]
fn every_bijector_is_valid_with_its_fewest_and_its_most_bins() {
    let shared = root().join("shaders/shared");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a shader");
    for entry in std::fs::read_dir(shared.join("bijector")).expect("a folder") {
        let path = entry.expect("an entry").path();
        for bins in [2, 64] {
            let texts =
                [format!("const BINS: u32 = {bins}u;"), read(&shared.join("prelude.wgsl")), read(&path)];
            parse(&texts.join("\n"), &path.display().to_string());
        }
    }
}

/// Every file under `shaders`, with its text.
fn shader_files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root().join("shaders")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                files.insert(path, text);
            }
        }
    }
    files
}

/// What is wrong with the header of a shader, if anything: a line that is missing where it has an entry point, or a twin
/// that does not exist, file or function.
fn header_fault(shader: &str) -> Option<String> {
    let header: Vec<&str> = shader.lines().map_while(|line| line.strip_prefix("//")).collect();
    for label in ["Equation", "Threads", "Data", "Order", "Twin"] {
        let has = header.iter().any(|line| line.trim_start().starts_with(&format!("{label}:")));
        if shader.contains("@compute") && !has {
            return Some(format!("no line `{label}:`"));
        }
    }
    let header = header.join(" ");
    let (_, twin) = header.split_once("Twin:")?;
    // `function and function in path, then function in path`, and after the last path anything.
    let mut functions = Vec::new();
    for word in twin.split_whitespace().map(|word| word.trim_end_matches([',', ';', '.'])) {
        if !word.ends_with(".rs") {
            functions.push(word);
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(word)) else {
            return Some(format!("there is no file `{word}`"));
        };
        for function in functions.drain(..).filter(|word| !["and", "in", "then"].contains(word)) {
            let has = |what: &str| {
                let name = format!("{what} {function}");
                text.match_indices(&name).any(|(at, _)| text[at + name.len()..].starts_with(['(', '<', ' ']))
            };
            if !has("fn") && !has("struct") {
                return Some(format!("there is no `{function}` in {word}"));
            }
        }
    }
    None
}

#[test]
fn headers_are_whole_and_name_twins_that_exist() {
    let faults: Vec<String> = shader_files()
        .iter()
        .filter_map(|(path, text)| Some(format!("{}: {}", path.display(), header_fault(text)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    let fault = |text| header_fault(text).unwrap_or_default();
    assert!(fault("// A kernel.\n\n@compute fn one() {}").contains("no line `Equation:`"));
    assert!(fault("// Twin: src/cpu/nothing.rs").contains("no file `src/cpu/nothing.rs`"));
    assert!(fault("// Twin: gathers in\n//    src/cpu/batch.rs").contains("no `gathers`"));
    assert_eq!(fault("// Twin: gather in src/cpu/batch.rs, then adam in src/cpu/adam.rs. Nothing else."), "");
}

#[test]
fn every_entry_point_is_in_the_table_once() {
    let mut in_shaders = BTreeSet::new();
    for kernel in KERNELS {
        let (module, _) = parse(&kernel.source(), kernel.name);
        in_shaders.extend(module.entry_points.iter().map(|entry| entry.name.clone()));
    }
    let in_table: BTreeSet<_> = KERNELS.iter().map(|kernel| kernel.name.to_string()).collect();
    assert_eq!(in_table.len(), KERNELS.len(), "no name twice");
    assert_eq!(in_table, in_shaders);
}

#[test]
fn every_kernel_stays_within_the_portable_limits() {
    for kernel in KERNELS {
        let storage = kernel.bindings.iter().filter(|b| b.access != Access::Uniform).count();
        assert!(storage <= 8, "{}: {storage} storage buffers", kernel.name);
        let (threads, bytes) = workgroup(kernel, &[]);
        assert!(threads <= 256, "{}: {threads} invocations", kernel.name);
        assert!(bytes <= 16 * 1024, "{}: {bytes} bytes of workgroup memory", kernel.name);
    }
}

/// Invocations of a workgroup and bytes of its memory.
fn workgroup(kernel: &Kernel, constants: &[Constant]) -> (u32, u32) {
    let (module, info) = parse(&kernel.specialised(constants), kernel.name);
    let index = module.entry_points.iter().position(|e| e.name == kernel.name).expect("in the module");
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("validated");
    let used = info.get_entry_point(index);
    let memory = module
        .global_variables
        .iter()
        .filter(|(handle, v)| v.space == naga::AddressSpace::WorkGroup && !used[*handle].is_empty())
        .map(|(_, v)| layouter[v.ty].size);
    (module.entry_points[index].workgroup_size.iter().product(), memory.sum())
}

/// Fused kernels with constants as plans give them: for GPUs with the least limits and for a software adapter, at
/// every number of quads, tiles and activations that matters.
fn fused() -> Vec<(&'static Kernel, Shape, Target)> {
    let mut cases = Vec::new();
    for software in [false, true] {
        for (features, hidden, activation, form) in [
            (2, &[64, 64][..], Activation::Relu, Separate),
            (5, &[17], Activation::Tanh, Separate),
            (8, &[128, 128], Activation::LeakyRelu, Separate),
            (32, &[128, 128, 128], Activation::Silu, Separate),
            (100, &[64, 64], Activation::Relu, Separate),
            (2, &[64, 64], Activation::Relu, Joint),
            (13, &[30], Activation::Silu, Joint),
            (5, &[32, 32], Activation::Relu, Residual),
        ] {
            let flow = Flow::new(features, 2, hidden).expect("valid").with_activation(activation);
            let flow = flow.with_conditioner(form);
            // A mixture takes memory for its components too.
            let flow = if features == 13 { flow.with_base(Base::Mixture { components: 20 }) } else { flow };
            let target = Target { software, ..Target::default() };
            for batch in [1, 100, 256, 4096] {
                let step = Shape::training(&flow, &target, batch);
                cases.extend(step.map(|shape| (&FUSED_GRADIENT, shape, target.clone())));
            }
            for kernel in [&FUSED_FORWARD, &FUSED_INVERSE, &FUSED_SAMPLE] {
                let evaluation = Shape::evaluation(&flow, &target);
                cases.extend(evaluation.map(|shape| (kernel, shape, target.clone())));
            }
        }
    }
    // Batches of several sizes may have one shape.
    cases.dedup_by(|one, other| one.0 == other.0 && one.1.constants() == other.1.constants());
    cases
}

#[test]
fn fused_kernels_take_as_much_workgroup_memory_as_the_host_computes() {
    let cases = fused();
    let steps = cases.iter().filter(|(kernel, ..)| kernel.name == "fused_gradient").count();
    assert!(steps > 20, "{steps} training steps fit");
    for (kernel, shape, target) in cases {
        let (threads, bytes) = workgroup(kernel, &shape.constants());
        assert_eq!((threads as usize, bytes as usize), (shape.threads, shape.workgroup_bytes()), "{shape}");
        assert!(bytes <= target.limits.max_compute_workgroup_storage_size, "{}: {shape}", kernel.name);
    }
}

#[test]
fn structs_have_the_same_fields_at_the_same_offsets_on_both_sides() {
    type Fields = &'static [(&'static str, usize)];
    let host: BTreeMap<&str, (Fields, usize)> = BTreeMap::from([
        ("Extent", (uniforms::Extent::FIELDS, size_of::<uniforms::Extent>())),
        ("Layer", (uniforms::Layer::FIELDS, size_of::<uniforms::Layer>())),
        ("Latent", (uniforms::Latent::FIELDS, size_of::<uniforms::Latent>())),
        ("Permutation", (uniforms::Permutation::FIELDS, size_of::<uniforms::Permutation>())),
        ("TrainState", (uniforms::TrainState::FIELDS, size_of::<uniforms::TrainState>())),
        ("Rules", (uniforms::Rules::FIELDS, size_of::<uniforms::Rules>())),
        ("Validation", (uniforms::Validation::FIELDS, size_of::<uniforms::Validation>())),
        ("Record", (uniforms::Record::FIELDS, size_of::<uniforms::Record>())),
        ("FusedTransform", (uniforms::FusedTransform::FIELDS, size_of::<uniforms::FusedTransform>())),
        ("Span", (uniforms::Span::FIELDS, size_of::<uniforms::Span>())),
        ("Fused", (uniforms::Fused::FIELDS, size_of::<uniforms::Fused>())),
    ]);
    // These stay within a shader, or hold one of the others in front of an array.
    const OTHERS: [&str; 9] = [
        "Block",
        "Strip",
        "Quads",
        "Product",
        "Finish",
        "Element",
        "BijectorGradient",
        "BatchReport",
        "Tile",
    ];
    let mut unseen: BTreeSet<&str> = host.keys().copied().collect();
    for kernel in KERNELS {
        let (module, _) = parse(&kernel.source(), kernel.name);
        for (_, ty) in module.types.iter() {
            let naga::TypeInner::Struct { members, span } = &ty.inner else { continue };
            let name = ty.name.as_deref().unwrap_or_default();
            if OTHERS.contains(&name) {
                continue;
            }
            let (fields, size) = host[name];
            unseen.remove(name);
            let got: Vec<(&str, usize)> =
                members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), m.offset as usize)).collect();
            assert_eq!(fields, got, "{name} in {}", kernel.name);
            assert_eq!(size, *span as usize, "{name}");
        }
    }
    assert!(unseen.is_empty(), "structs that no shader has: {unseen:?}");
}

/// Tint is a second, independent implementation of WGSL. Where it is installed it has to accept every kernel.
#[test]
fn tint_accepts_every_kernel() {
    let Some(path) = std::env::var_os("PATH") else { return };
    let Some(tint) = std::env::split_paths(&path).map(|dir| dir.join("tint")).find(|file| file.is_file())
    else {
        println!("skipped: tint is not on the PATH");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let defaults = KERNELS.iter().map(|&kernel| (kernel, Vec::new()));
    let specialised = fused().into_iter().map(|(kernel, shape, _)| (kernel, shape.constants()));
    for (kernel, constants) in defaults.chain(specialised) {
        let file = folder.join(format!("{}.wgsl", kernel.name));
        std::fs::write(&file, kernel.specialised(&constants)).expect("a target folder that can be written");
        let output = std::process::Command::new(&tint)
            .args(["--format", "wgsl", "--entry-point", kernel.name])
            .arg(&file)
            .output()
            .expect("tint starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {message}", kernel.name);
    }
}
