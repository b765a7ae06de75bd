//! A flow as JSON: a list of transforms, or, for couplings that are all alike, the shorter record that model files of
//! versions 1 to 3 hold. Such flows are still written so.

use serde::{Deserialize, Serialize};

use super::{Activation, Base, Bijector, Conditioner, ConditionerForm, Coupling, Flow, Transform};

/// Both forms at once; a field that a form lacks is absent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowRecord {
    features: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    context: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    masks: Option<Vec<Vec<bool>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hidden: Option<Vec<usize>>,
    activation: Activation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transforms: Option<Vec<Transform>>,
    #[serde(default)]
    base: Base,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What couplings have in common where all are alike: masks, hidden widths and the bound of the log-scale.
struct Uniform {
    masks: Vec<Vec<bool>>,
    hidden: Vec<usize>,
    bound: f32,
}

impl Uniform {
    fn of(transforms: &[Transform]) -> Option<Self> {
        let mut masks = Vec::new();
        let mut common: Option<(&[usize], f32)> = None;
        for transform in transforms {
            let Coupling { mask, conditioner, bijector } = transform.coupling()?;
            let (Bijector::Affine { bound }, ConditionerForm::Separate) = (*bijector, conditioner.form)
            else {
                return None;
            };
            let own = (&conditioner.hidden[..], bound);
            if *common.get_or_insert(own) != own {
                return None;
            }
            masks.push(mask.clone());
        }
        common.map(|(hidden, bound)| Self { masks, hidden: hidden.to_vec(), bound })
    }

    fn transforms(self) -> Vec<Transform> {
        let Self { masks, hidden, bound } = self;
        let coupling = |mask| {
            Transform::Coupling(Coupling {
                mask,
                conditioner: Conditioner { form: ConditionerForm::Separate, hidden: hidden.clone() },
                bijector: Bijector::Affine { bound },
            })
        };
        masks.into_iter().map(coupling).collect()
    }
}

impl Flow {
    /// Whether a model file of version 3 can hold it: couplings alone, all alike but for their masks, with separate
    /// networks, and a standard normal base.
    pub fn is_uniform(&self) -> bool {
        self.base == Base::StandardNormal && Uniform::of(&self.transforms).is_some()
    }
}

impl From<Flow> for FlowRecord {
    fn from(flow: Flow) -> Self {
        let Flow { features, context, activation, transforms, base } = flow;
        let record = Self {
            features,
            context,
            masks: None,
            hidden: None,
            activation,
            bound: None,
            transforms: None,
            base,
        };
        match Uniform::of(&transforms) {
            Some(Uniform { masks, hidden, bound }) => {
                Self { masks: Some(masks), hidden: Some(hidden), bound: Some(bound), ..record }
            }
            None => Self { transforms: Some(transforms), ..record },
        }
    }
}

impl TryFrom<FlowRecord> for Flow {
    type Error = String;

    fn try_from(record: FlowRecord) -> Result<Self, String> {
        let FlowRecord { features, context, masks, hidden, activation, bound, transforms, base } = record;
        let transforms = match (transforms, masks, hidden, bound) {
            (Some(transforms), None, None, None) => transforms,
            (None, Some(masks), Some(hidden), Some(bound)) => Uniform { masks, hidden, bound }.transforms(),
            (None, ..) => return Err("a flow has `transforms`, or else `masks`, `hidden` and `bound`".into()),
            (Some(_), ..) => {
                return Err("a flow with `transforms` has no `masks`, `hidden` or `bound` beside them".into());
            }
        };
        Ok(Self { features, context, activation, transforms, base })
    }
}
