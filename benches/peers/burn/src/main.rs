//! The model of moonflow in Burn, behind the line protocol of `benches/peers`.
//!
//! `burn-worker --device flex|ndarray|wgpu|vulkan`. The number of threads comes from `RAYON_NUM_THREADS` and
//! `MATMUL_NUM_THREADS`. `wgpu` settles on a shader language by itself, `vulkan` insists on Vulkan and so on SPIR-V;
//! both fuse kernels and tune products by trial. ndarray is deprecated in favour of flex.

#[path = "../../worker/src/protocol.rs"]
mod protocol;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use protocol::{Checked, Job, Result, Work, check_rows, chirp};
use serde_json::json;

const CLIP_NORM: f32 = 5.0;

fn main() -> Result<()> {
    let name = std::env::args().skip_while(|argument| argument != "--device").nth(1);
    let device = match name.as_deref() {
        Some("flex") => Device::flex(),
        #[expect(deprecated)]
        Some("ndarray") => Device::ndarray(),
        #[cfg(feature = "adapter")]
        Some("wgpu") => Device::wgpu(Default::default()),
        #[cfg(feature = "vulkan")]
        Some("vulkan") => Device::vulkan(Default::default()),
        _ => return Err("--device takes flex, ndarray and, where built with the features of these names, wgpu or vulkan".into()),
    };
    let hello = json!({ "versions": { "burn": "0.22.1" }, "device": format!("{device:?}") });
    protocol::serve(hello, |job| prepare(job, &device), |job| check(job, &device))
}

/// Scale and translate networks, each its own products.
#[derive(Module, Debug)]
struct Separate {
    scale: Vec<Linear>,
    translate: Vec<Linear>,
}

/// Both networks at once: weights [2, in, out], biases [2, 1, out].
#[derive(Module, Debug)]
struct Stacked {
    weights: Vec<Param<Tensor<3>>>,
    biases: Vec<Param<Tensor<3>>>,
}

#[derive(Module, Debug)]
enum Conditioner {
    Separate(Separate),
    Stacked(Stacked),
}

impl Conditioner {
    /// Raw log-scale and shift, both [B, D].
    fn forward(&self, x: Tensor<2>) -> [Tensor<2>; 2] {
        match self {
            Self::Separate(networks) => [&networks.scale, &networks.translate].map(|linears| {
                let (last, hidden) = linears.split_last().expect("invariant: three linear layers");
                last.forward(hidden.iter().fold(x.clone(), |h, linear| relu(linear.forward(h))))
            }),
            Self::Stacked(networks) => {
                let mut h: Tensor<3> = x.unsqueeze();
                for (index, (weight, bias)) in networks.weights.iter().zip(&networks.biases).enumerate() {
                    if index > 0 {
                        h = relu(h);
                    } else {
                        h = h.repeat_dim(0, 2);
                    }
                    h = h.matmul(weight.val()) + bias.val();
                }
                let [_, rows, features] = h.dims();
                [0, 1].map(|network| h.clone().narrow(0, network, 1).reshape([rows, features]))
            }
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    couplings: Vec<Conditioner>,
}

/// A model with what does not train: its masks [1, D], kept and moved, by layer.
struct Flow {
    model: Model,
    masks: Vec<[Tensor<2>; 2]>,
}

impl Flow {
    /// Parameter k is chirp(k) / √inputs in moonflow's flat order.
    fn new(job: &Job, device: &Device) -> Self {
        let widths = [job.features, job.hidden, job.hidden, job.features];
        let mut index = 0;
        let mut values = |count: usize, inputs: usize| -> Vec<f32> {
            let start = index;
            index += count;
            (start..index).map(|index| (chirp(index) / (inputs as f64).sqrt()) as f32).collect()
        };
        // [in, out] and [out], as Burn keeps them.
        let mut network = || -> Vec<(Vec<f32>, Vec<f32>)> {
            let linear = |pair: &[usize]| {
                let (inputs, outputs) = (pair[0], pair[1]);
                let weight = values(inputs * outputs, inputs);
                let transposed = (0..inputs * outputs)
                    .map(|index| weight[index % outputs * inputs + index / outputs])
                    .collect();
                (transposed, values(outputs, job.features))
            };
            widths.windows(2).map(linear).collect()
        };
        let couplings = (0..job.layers)
            .map(|_| {
                let networks = [network(), network()];
                if job.nets == "stacked" {
                    Conditioner::Stacked(stacked(&networks, &widths, device))
                } else {
                    let [scale, translate] = networks.map(|network| separate(network, &widths, device));
                    Conditioner::Separate(Separate { scale, translate })
                }
            })
            .collect();
        let masks = (0..job.layers)
            .map(|layer| {
                [0, 1].map(|odd| {
                    let mask: Vec<f32> = (0..job.features)
                        .map(|feature| f32::from(u8::from((layer + feature) % 2 == odd)))
                        .collect();
                    Tensor::from_data(TensorData::new(mask, [1, job.features]), device)
                })
            })
            .collect();
        Self { model: Model { couplings }, masks }
    }

    /// s and t [B, D] of a layer, zero where features are kept.
    fn conditioner(&self, layer: usize, x: &Tensor<2>) -> [Tensor<2>; 2] {
        let [kept, moved] = &self.masks[layer];
        let [o, t] = self.model.couplings[layer].forward(x.clone() * kept.clone());
        [(o * 0.5).tanh() * 2.0 * moved.clone(), t * moved.clone()]
    }

    /// log p [B, 1].
    fn log_prob(&self, mut x: Tensor<2>) -> Tensor<2> {
        let features = x.dims()[1] as f32;
        let mut log_scales: Option<Tensor<2>> = None;
        for layer in 0..self.masks.len() {
            let [s, t] = self.conditioner(layer, &x);
            x = (x - t) * (-s.clone()).exp();
            log_scales = Some(log_scales.map_or(s.clone(), |sum| sum + s));
        }
        let log_scales = log_scales.expect("invariant: at least one layer");
        -(x.square() * 0.5 + log_scales).sum_dim(1) - 0.5 * features * std::f32::consts::TAU.ln()
    }

    fn inverse(&self, mut x: Tensor<2>) -> Tensor<2> {
        for layer in (0..self.masks.len()).rev() {
            let [s, t] = self.conditioner(layer, &x);
            x = x * s.exp() + t;
        }
        x
    }
}

fn separate(network: Vec<(Vec<f32>, Vec<f32>)>, widths: &[usize], device: &Device) -> Vec<Linear> {
    let linears = network.into_iter().zip(widths.windows(2)).map(|((weight, bias), pair)| {
        let mut linear = LinearConfig::new(pair[0], pair[1]).init(device);
        linear.weight = Param::from_data(TensorData::new(weight, [pair[0], pair[1]]), device);
        linear.bias = Some(Param::from_data(TensorData::new(bias, [pair[1]]), device));
        linear
    });
    linears.collect()
}

fn stacked(networks: &[Vec<(Vec<f32>, Vec<f32>)>; 2], widths: &[usize], device: &Device) -> Stacked {
    let [scale, translate] = networks;
    let mut stacked = Stacked { weights: Vec::new(), biases: Vec::new() };
    for ((pair, scale), translate) in widths.windows(2).zip(scale).zip(translate) {
        let weights = TensorData::new([&scale.0[..], &translate.0].concat(), [2, pair[0], pair[1]]);
        let biases = TensorData::new([&scale.1[..], &translate.1].concat(), [2, 1, pair[1]]);
        stacked.weights.push(Param::from_data(weights, device));
        stacked.biases.push(Param::from_data(biases, device));
    }
    stacked
}

/// Sum of squares of all gradients: Burn itself clips tensor by tensor only.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(parameter.id) {
            let squares = gradient.square().sum();
            self.sum = Some(self.sum.take().map_or(squares.clone(), |sum| sum + squares));
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(parameter.id) {
            self.gradients.register(parameter.id, gradient * self.factor.clone().unsqueeze());
        }
    }
}

/// The gradients of `loss` and their global norm [1].
fn gradients(loss: &Tensor<1>, model: &Model) -> (GradientsParams, Tensor<1>) {
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let mut squares = Squares { gradients: &gradients, sum: None };
    model.visit(&mut squares);
    let norm = squares.sum.expect("invariant: a model has parameters").sqrt();
    (gradients, norm)
}

fn check(job: &Job, device: &Device) -> Result<Checked> {
    let device = device.clone().autodiff();
    let flow = Flow::new(job, &device);
    let x = Tensor::from_data(TensorData::new(check_rows(job), [job.batch, job.features]), &device);
    let loss = -flow.log_prob(x).mean();
    let (_, norm) = gradients(&loss, &flow.model);
    let [nll, norm] = [loss, norm].map(|value| f64::from(value.into_scalar::<f32>()));
    Ok(Checked { nll, grad_norm: norm, parameters: flow.model.num_params(), couplings: Vec::new() })
}

fn prepare(job: &Job, device: &Device) -> Result<Work> {
    let (features, rows) = (job.features, job.rows);
    let normal = Distribution::Normal(0.0, 1.0);
    match job.job.as_str() {
        "train" => train(job, device.clone().autodiff()),
        "log_prob" => {
            let flow = Flow::new(job, device);
            let x: Vec<f32> = Tensor::<2>::random([rows, features], normal, device).try_into_vec_as()?;
            let device = device.clone();
            Ok(Box::new(move |times| {
                for _ in 0..times {
                    let x = Tensor::from_data(TensorData::new(x.clone(), [rows, features]), &device);
                    std::hint::black_box(flow.log_prob(x).try_into_data()?);
                }
                Ok(times as usize * rows)
            }))
        }
        "sample" => {
            let flow = Flow::new(job, device);
            let device = device.clone();
            Ok(Box::new(move |times| {
                for _ in 0..times {
                    let noise = Tensor::random([rows, features], normal, &device);
                    std::hint::black_box(flow.inverse(noise).try_into_data()?);
                }
                Ok(times as usize * rows)
            }))
        }
        other => Err(format!("job {other:?} is not known").into()),
    }
}

fn train(job: &Job, device: Device) -> Result<Work> {
    let (steps, batch, features) = (job.steps, job.batch, job.features);
    let mut flow = Flow::new(job, &device);
    let mut adam = AdamConfig::new().with_epsilon(1e-8).init();
    let rows = steps * batch;
    let data = Tensor::<2>::random([rows, features], Distribution::Normal(0.0, 1.0), &device);
    let mut order: Vec<i32> = (0..rows as i32).collect();
    let mut random = 1_u64;
    Ok(Box::new(move |epochs| {
        for _ in 0..epochs {
            for last in (1..rows).rev() {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(last, (random >> 33) as usize % (last + 1));
            }
            let order = Tensor::<1, Int>::from_data(TensorData::new(order.clone(), [rows]), &device);
            let shuffled = data.clone().select(0, order);
            for step in 0..steps {
                let x = shuffled.clone().narrow(0, step * batch, batch);
                let loss = -flow.log_prob(x).mean();
                let (mut gradients, norm) = gradients(&loss, &flow.model);
                let factor = (norm.recip() * CLIP_NORM).clamp_max(1.0);
                flow.model.visit(&mut Scale { gradients: &mut gradients, factor });
                flow.model = adam.step(1e-3, flow.model.clone(), gradients);
            }
        }
        device.sync()?;
        Ok(epochs as usize * steps)
    }))
}
