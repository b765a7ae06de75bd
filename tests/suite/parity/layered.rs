//! The layered plan: every form of conditioner, and its tiles, which change no bit and of which the search for the fastest
//! is remembered.

use moonflow::engine::Engine;
use moonflow::flow::{Activation, Bijector, ConditionerForm, Flow, Transform};
use moonflow::gpu::PlanKind;
use moonflow::gpu::tile::Tiling;
use moonflow::gpu::tile_cache::TileCache;

use super::layer::TILES;
use super::plans::{activation, compare};
use crate::common::{Comparison, from_wide, random_parameters, uniform};
use crate::gpu::engine;

/// Loss and gradient with the tiles of `tiling`.
fn with_tiling(flow: &Flow, x: &[f32], tiling: Tiling) -> Option<(f64, Vec<f32>)> {
    let mut gpu = engine(flow, PlanKind::Layered)?;
    gpu.set_tiling(tiling);
    Engine::set_parameters(&mut gpu, &from_wide::<f32>(&random_parameters(flow, 2))).expect("fits");
    Some(pollster::block_on(gpu.loss_and_gradient(x)).expect("rows"))
}

#[test]
fn no_bit_of_loss_or_gradient_depends_on_the_tiles() {
    let flow = Flow::new(9, 2, &[33, 70]).expect("valid").with_activation(Activation::Silu);
    let x = from_wide::<f32>(&uniform(70 * 9, 2.0, 1));
    let Some(sound) = with_tiling(&flow, &x, Tiling::default()) else { return };
    // The thinnest tile, and the one whose blocks are as large as any in either direction.
    for tile in [TILES[1], TILES[5]] {
        let got = with_tiling(&flow, &x, Tiling::only(tile)).expect("as before");
        assert_eq!(got.0, sound.0, "{tile}");
        let differing =
            got.1.iter().zip(&sound.1).filter(|(got, want)| got.to_bits() != want.to_bits()).count();
        assert_eq!(differing, 0, "{tile}: values of the gradient that differ");
    }
}

/// Flows of one kind of coupling, and one that has several kinds, with actnorms between.
fn conditioned() -> Vec<(Flow, usize)> {
    let spline = Bijector::Spline { bins: 8, bound: 2.0 };
    let mut flows: Vec<(Flow, usize)> = [
        (2, 0, 2, &[9][..], ConditionerForm::Joint, None, 1),
        (5, 0, 3, &[70, 33], ConditionerForm::Joint, None, 130),
        (3, 2, 2, &[12, 12, 12], ConditionerForm::Residual, None, 67),
        (4, 1, 3, &[16], ConditionerForm::Residual, Some(spline), 600),
        (2, 0, 3, &[20, 11], ConditionerForm::Joint, Some(spline), 65),
    ]
    .into_iter()
    .map(|(modelled, context, couplings, hidden, form, bijector, rows)| {
        let flow = Flow::conditional(modelled, context, couplings, hidden).expect("valid");
        let flow = flow.with_conditioner(form);
        (bijector.into_iter().fold(flow, Flow::with_bijector), rows)
    })
    .collect();
    let mut mixed = Flow::new(5, 2, &[14, 9]).expect("valid");
    let separate = std::mem::take(&mut mixed.transforms);
    let joint = Flow::new(5, 2, &[7, 12, 5]).expect("valid").with_conditioner(ConditionerForm::Joint);
    let residual = Flow::new(5, 2, &[10, 10]).expect("valid").with_conditioner(ConditionerForm::Residual);
    let (joint, residual) = (joint.with_bijector(spline).transforms, residual.transforms);
    for (at, part) in [&joint[..1], &separate, &residual, &separate[..1], &joint[1..]].into_iter().enumerate()
    {
        if at == 2 {
            mixed.transforms.push(Transform::Actnorm);
        }
        mixed.transforms.extend_from_slice(part);
    }
    mixed.transforms.push(Transform::Actnorm);
    flows.push((mixed.clone(), 70));
    let permutation = |permutation: &[usize]| Transform::Permutation { permutation: permutation.into() };
    let (rotation, swap) = (permutation(&[2, 3, 4, 0, 1]), permutation(&[1, 0, 2, 4, 3]));
    // LU layers and permutations first, last, next to each other, and next to every kind of coupling.
    let added = [rotation.clone(), Transform::Lu];
    flows.push((mixed.clone().before_each_coupling(&added), 65));
    mixed.transforms.splice(0..0, [Transform::Lu, rotation, swap.clone()]);
    mixed.transforms.extend([Transform::Lu, Transform::Lu, swap]);
    flows.push((mixed, 300));
    let given = Flow::conditional(3, 2, 2, &[9]).expect("valid");
    flows.push((
        given.before_each_coupling(&[permutation(&[1, 2, 0]), Transform::Lu, Transform::Actnorm]),
        33,
    ));
    flows
}

#[test]
fn loss_and_gradient_of_every_kind_of_transform_are_those_of_the_cpu() {
    let mut comparison = Comparison::new("layered plan");
    for (at, (flow, rows)) in conditioned().into_iter().enumerate() {
        let flow = flow.with_activation(activation(PlanKind::Layered, at));
        flow.validate().expect("valid");
        let name = format!("flow {at}");
        compare(&mut comparison, &name, PlanKind::Layered, &flow, (rows, at as u64, 16.0));
    }
    comparison.finish();
}

#[test]
fn a_search_measures_each_product_once_and_its_cache_remembers_it_for_that_device_alone() {
    let flow = Flow::new(2, 2, &[8]).expect("valid");
    let Some(mut gpu) = engine(&flow, PlanKind::Layered) else { return };
    let measured = pollster::block_on(gpu.tune_evaluation(64)).expect("a search");
    let kernels: Vec<_> = measured.iter().map(|measured| measured.product.kernel).collect();
    assert_eq!(kernels, ["coupling_forward", "coupling_inverse", "linear_forward"]);
    for measured in &measured {
        let candidates = Tiling::on(&gpu.context().target()).candidates(&measured.product);
        assert!(candidates.contains(&measured.tile), "{measured:?}");
        assert!(measured.seconds > 0.0 && measured.seconds <= measured.default_seconds, "{measured:?}");
    }
    assert_eq!(pollster::block_on(gpu.tune_evaluation(64)).expect("a search"), []);

    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("deep/tiles.json");
    assert_eq!(TileCache::read(&path), (TileCache::default(), None));
    let mut cache = TileCache::default();
    cache.insert(gpu.context(), &measured);
    cache.insert(gpu.context(), &measured);
    cache.write(&path).expect("written");
    let (read, note) = TileCache::read(&path);
    assert_eq!(note, None);
    let tiling = read.tiling(gpu.context());
    assert!(measured.iter().all(|measured| tiling.tile(&measured.product) == measured.tile));
    assert!(measured.iter().all(|measured| tiling.knows(&measured.product)));

    let text = std::fs::read_to_string(&path).expect("written");
    let name = &gpu.context().info().name;
    assert_eq!(text.matches(&format!("{name:?}")).count(), measured.len(), "each product once: {text}");
    for (from, to) in [
        (format!("{name:?}"), "\"another adapter\"".to_owned()),
        (format!("{:?}", gpu.context().driver()), "\"another driver\"".to_owned()),
        ("\"rows\": 64".to_owned(), "\"rows\": 63".to_owned()),
        ("\"block_rows\": 1".to_owned(), "\"block_rows\": 0".to_owned()),
        ("_forward\"".to_owned(), "_backwards\"".to_owned()),
    ] {
        let changed = text.replace(&from, &to);
        assert_ne!(changed, text, "{from} is in the file");
        std::fs::write(&path, changed).expect("writable");
        let tiling = TileCache::read(&path).0.tiling(gpu.context());
        assert!(!measured.iter().all(|measured| tiling.knows(&measured.product)), "{to} is believed");
    }
    for unusable in ["", "{", "[1]", &text.replace("\"format\": 1", "\"format\": 2")] {
        std::fs::write(&path, unusable).expect("writable");
        let (cache, note) = TileCache::read(&path);
        assert_eq!(cache, TileCache::default());
        assert!(note.is_some_and(|note| note.contains("tiles.json") && note.contains("ignored")));
    }
}
