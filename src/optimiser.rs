//! Adam, its learning-rate schedule and the training state that both engines advance: pure data.

use serde::{Deserialize, Serialize};

use crate::flow::Flow;
use crate::layout::Layout;
use crate::random::{self, Stream};

/// Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019) and global-norm clipping.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled decay: parameters shrink by learning rate × this each step.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global Euclidean norm; infinity turns clipping off.
    pub clip_norm: f32,
}

impl Adam {
    /// 1 − β1 and 1 − β2, from the decimal that was written rather than the `f32` nearest to it: 0.001 and not
    /// 0.00099999 for β2 = 0.999, which would change the first steps' bias correction in its fifth digit.
    pub fn gains(&self) -> [f64; 2] {
        [self.beta1, self.beta2].map(|beta| 1.0 - decimal(beta))
    }

    /// 1 − β1^step and 1 − β2^step by the recurrence c ← c + (1 − β)(1 − c) that both engines advance in `f32`.
    ///
    /// A training under way carries its own in [`State::corrections`]: a driver may contract the recurrence, and the
    /// last bit may then differ.
    pub fn bias_corrections(&self, step: u32) -> [f32; 2] {
        self.gains().map(|gain| {
            let gain = gain as f32;
            (0..step).fold(0.0, |correction, _| correction + gain * (1.0 - correction))
        })
    }
}

/// The shortest decimal that names `value`, in double precision.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().expect("invariant: a printed f32 reads as a number")
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip_norm: f32::INFINITY }
    }
}

/// Shape of the learning rate over training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Decay {
    /// The same rate throughout.
    #[default]
    Constant = 0,
    /// Half a cosine from the base rate to zero.
    Cosine = 1,
}

impl Decay {
    /// Every shape.
    pub const ALL: [Self; 2] = [Self::Constant, Self::Cosine];

    /// Its name on the command line and in the model file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Cosine => "cosine",
        }
    }
}

/// Learning rate as a function of the step.
///
/// For step s (from 0), warm-up w and total T: base · (s + 1) / w while s < w; after that base for
/// [`Decay::Constant`], and base · cos²(π/2 · (s − w) / (T − w)) for [`Decay::Cosine`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Shape after warm-up.
    pub decay: Decay,
    /// Highest learning rate.
    pub base: f32,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Steps of the whole training.
    pub total_steps: u32,
}

/// The parameters that did best so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Their validation loss: mean of −log p in nats per row, in standardised units.
    pub nll: f64,
    /// Flat parameters `[P]`.
    pub parameters: Vec<f32>,
}

/// Parameters and optimiser state: all that training changes. A training begun from it goes on bit for bit like the
/// one that it was read from, if the engine computes in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Flat parameters `[P]`, in the order of [`Layout`].
    pub parameters: Vec<f32>,
    /// First Adam moment `[P]`.
    pub moment1: Vec<f32>,
    /// Second Adam moment `[P]`.
    pub moment2: Vec<f32>,
    /// Completed steps.
    pub step: u32,
    /// Completed epochs.
    pub epoch: u32,
    /// Rows of the epoch under way that steps have been taken on already; 0 between epochs.
    pub row: u32,
    /// 1 − β1^step and 1 − β2^step as the engine has them.
    pub corrections: [f64; 2],
    /// The best so far; `None` when no epoch has been validated.
    pub best: Option<Best>,
}

impl State {
    /// A state at step 0 with given parameters `[P]` and zero moments.
    pub fn from_parameters(parameters: Vec<f32>) -> Self {
        let zeros = vec![0.0; parameters.len()];
        Self {
            moment1: zeros.clone(),
            moment2: zeros,
            parameters,
            step: 0,
            epoch: 0,
            row: 0,
            corrections: [0.0; 2],
            best: None,
        }
    }

    /// The untrained state: hidden layers uniform in ±1/√inputs, last layers zero, so that the flow is the
    /// identity. Drawn on the host from [`Stream::Parameters`]; the same bits for every engine.
    pub fn initial(flow: &Flow, seed: u64) -> Self {
        let layout = Layout::new(flow);
        let mut parameters = vec![0.0; layout.total];
        for network in layout.blocks.iter().flat_map(|block| &block.networks) {
            let (_, hidden) = network.layers.split_last().expect("invariant: a network has layers");
            for span in hidden {
                let limit = 1.0 / (span.inputs as f32).sqrt();
                let end = span.bias + span.outputs;
                for (index, value) in (span.weight..end).zip(&mut parameters[span.weight..end]) {
                    let counter = [index as u32, 0, 0, Stream::Parameters as u32];
                    let bits = random::philox(counter, random::key(seed))[0];
                    *value = limit * (2.0 * random::uniform(bits) - 1.0);
                }
            }
        }
        Self::from_parameters(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_last_layers_are_zero_and_hidden_layers_are_not() {
        let flow = Flow::new(3, 2, &[5, 4]).expect("valid");
        let state = State::initial(&flow, 1);
        for tensor in &Layout::new(&flow).tensors {
            let zero = state.parameters[tensor.range()].iter().all(|&value| value == 0.0);
            assert_eq!(zero, tensor.name.contains(".2."), "{}", tensor.name);
        }
        assert_ne!(state, State::initial(&flow, 2), "the seed matters");
        assert_eq!(state, State::initial(&flow, 1), "and decides everything");
    }
}
