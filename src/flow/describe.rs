//! A flow in words, for people.

use std::fmt;

use super::{Activation, Base, Bijector, ConditionerForm, Coupling, Flow, Transform};

impl fmt::Display for Bijector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Affine { bound } => write!(f, "log-scale within ±{bound}"),
            Self::Spline { bins, bound } => write!(f, "splines of {bins} bins within ±{bound}"),
        }
    }
}

impl Coupling {
    /// Hidden widths, such as 64×64.
    pub fn hidden(&self) -> String {
        let widths: Vec<String> = self.conditioner.hidden.iter().map(usize::to_string).collect();
        widths.join("×")
    }

    /// Its networks and its bijector, such as `64×64 relu joint networks, log-scale within ±2`.
    pub fn in_words(&self, activation: Activation) -> String {
        let networks = match self.conditioner.form {
            ConditionerForm::Separate => "networks",
            ConditionerForm::Joint => "joint networks",
            ConditionerForm::Residual => "residual networks",
        };
        format!("{} {} {networks}, {}", self.hidden(), activation.name(), self.bijector)
    }
}

impl Flow {
    /// What it is made of, such as `10 couplings`.
    pub fn contents(&self) -> String {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for kind in self.transforms.iter().map(Transform::kind) {
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
        }
        let plural = |(kind, count): (&str, usize)| match count {
            1 => format!("1 {kind}"),
            _ => format!("{count} {kind}s"),
        };
        kinds.into_iter().map(plural).collect::<Vec<_>>().join(", ")
    }

    /// The different kinds of its couplings in words, in the order of the first of each.
    pub fn kinds_of_couplings(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        for kind in self.couplings().map(|coupling| coupling.in_words(self.activation)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// The name under which the field knows it.
    pub fn family(&self) -> &'static str {
        let coupled = |of: fn(&Bijector) -> bool| {
            let mut bijectors = self.couplings().map(|coupling| coupling.bijector).peekable();
            bijectors.peek().is_some() && bijectors.all(|bijector| of(&bijector))
        };
        let mixed = self.transforms.iter().any(|transform| transform.coupling().is_none());
        if !mixed && coupled(|bijector| matches!(bijector, Bijector::Affine { .. })) {
            "RealNVP"
        } else if coupled(|bijector| matches!(bijector, Bijector::Spline { .. })) {
            "Neural spline flow"
        } else {
            "Flow"
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modelled = self.modelled();
        let plural = if modelled == 1 { "" } else { "s" };
        write!(f, "{} over {modelled} feature{plural}", self.family())?;
        if self.context > 0 {
            write!(f, " given {}", self.context)?;
        }
        write!(f, ": {}", self.contents())?;
        for kind in self.kinds_of_couplings() {
            write!(f, ", {kind}")?;
        }
        match self.base {
            Base::StandardNormal => Ok(()),
            base => write!(f, ", base: {base}"),
        }
    }
}
