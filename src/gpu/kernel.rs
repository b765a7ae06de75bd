//! The table of WGSL entry points: which texts make each one up, and what it binds.

use crate::flow::{Base, Bijector};

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform struct, written by the host.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is read and written.
    ReadWrite,
}

/// A binding of a kernel: its number, the WGSL variable's name and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Number within group 0.
    pub number: u32,
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// Its use.
    pub access: Access,
}

/// A constant that a kernel's text leaves to the plan: its name and its value.
pub type Constant = (&'static str, u32);

/// An entry point.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the entry point, of its CPU twin and of its parity case.
    pub name: &'static str,
    /// WGSL texts that, put one after the other, make the module.
    pub texts: &'static [&'static str],
    /// Its bindings, by number; the first is the uniform.
    pub bindings: &'static [Binding],
    /// The constants that its text expects, with the values that they have where a dispatch says nothing.
    pub constants: &'static [Constant],
}

impl Kernel {
    /// The module's whole text, with every constant at its default.
    pub fn source(&self) -> String {
        self.specialised(&[])
    }

    /// The module's whole text for these values of its constants; those left out have their defaults.
    pub fn specialised(&self, constants: &[Constant]) -> String {
        let mut text: String = self
            .constants
            .iter()
            .zip(self.values(constants))
            .map(|((name, _), value)| format!("const {name}: u32 = {value}u;\n"))
            .collect();
        text.push_str(&self.filled(constants).join("\n"));
        text
    }

    /// Its texts, with what the constants choose in its slots.
    pub fn filled(&self, constants: &[Constant]) -> Vec<&'static str> {
        let values: Vec<_> = self.constants.iter().zip(self.values(constants)).collect();
        let fill = |&text: &&'static str| {
            let Some((_, constant, texts)) = SLOTS.iter().find(|(name, ..)| *name == text) else {
                return text;
            };
            let chosen = values.iter().find(|((name, _), _)| name == constant);
            chosen.map_or(text, |(_, code)| texts[*code as usize])
        };
        self.texts.iter().map(fill).collect()
    }

    /// The values of its constants in the order of the table, by which a compiled kernel is known.
    pub fn values(&self, constants: &[Constant]) -> Vec<u32> {
        debug_assert!(
            constants.iter().all(|(name, _)| self.constants.iter().any(|(known, _)| known == name)),
            "invariant: {} has each of {constants:?}",
            self.name
        );
        let value = |&(name, default)| {
            constants.iter().find(|(given, _)| *given == name).map_or(default, |given| given.1)
        };
        self.constants.iter().map(value).collect()
    }
}

/// What stands among a kernel's texts for one that a dispatch chooses, the constant that chooses it, which every kernel with
/// that slot has, and the texts by its value.
static SLOTS: [(&str, &str, [&str; 2]); 4] = [
    (
        "bijector",
        BIJECTOR,
        [
            include_str!("../../shaders/shared/bijector/affine.wgsl"),
            include_str!("../../shaders/shared/bijector/spline.wgsl"),
        ],
    ),
    (
        "base",
        BASE,
        [
            include_str!("../../shaders/fused/base/normal.wgsl"),
            concat!(
                include_str!("../../shaders/fused/base/mixture.wgsl"),
                "\n",
                include_str!("../../shaders/shared/mixture.wgsl")
            ),
        ],
    ),
    (
        "base_backward",
        BASE,
        [
            include_str!("../../shaders/fused/base/normal_backward.wgsl"),
            include_str!("../../shaders/fused/base/mixture_backward.wgsl"),
        ],
    ),
    (
        "base_draw",
        BASE,
        [
            include_str!("../../shaders/fused/base/normal_draw.wgsl"),
            include_str!("../../shaders/fused/base/mixture_draw.wgsl"),
        ],
    ),
];

/// The value of [`Bijector::code`].
const BIJECTOR: &str = "BIJECTOR";

/// Which base density there is: 0 for standard normals and 1 for a mixture.
const BASE: &str = "BASE";

/// Components of a mixture.
const COMPONENTS: Constant = ("COMPONENTS", 1);

impl Base {
    /// The constants of fused kernels that have it.
    pub(super) fn constants(self) -> Vec<Constant> {
        match self {
            Self::StandardNormal => vec![(BASE, 0)],
            Self::Mixture { components } => vec![(BASE, 1), (COMPONENTS.0, components as u32)],
        }
    }
}

/// Bins of a spline; 8 by default.
const BINS: Constant = ("BINS", 8);

impl Bijector {
    /// The constants of kernels that have it.
    pub fn constants(&self) -> Vec<Constant> {
        match *self {
            Self::Affine { .. } => vec![(BIJECTOR, self.code())],
            Self::Spline { bins, .. } => vec![(BIJECTOR, self.code()), (BINS.0, bins as u32)],
        }
    }

    /// Whether its backward pass reads its input x instead of its result z: `FROM_INPUT` in its text.
    pub fn from_input(&self) -> bool {
        match self {
            Self::Affine { .. } => false,
            Self::Spline { .. } => true,
        }
    }

    /// Floating-point operations for a feature, an exponential counted as ten: forward or inverse, and backward.
    pub(super) fn flops(&self) -> [usize; 2] {
        match *self {
            Self::Affine { .. } => [15, 20],
            Self::Spline { bins, .. } => [100 + 40 * bins, 150 + 55 * bins],
        }
    }

    /// The number by which kernels know its kind: the value of their constant `BIJECTOR`.
    pub fn code(&self) -> u32 {
        match self {
            Self::Affine { .. } => 0,
            Self::Spline { .. } => 1,
        }
    }
}

macro_rules! text {
    ($slot:ident) => {
        stringify!($slot)
    };
    ($file:literal) => {
        include_str!(concat!("../../shaders/", $file, ".wgsl"))
    };
}

macro_rules! texts {
    ($($text:tt),* $(,)?) => { &[$(text!($text)),*] };
}

/// The texts of a fused kernel that takes rows through a flow: what all of them share, and its own.
macro_rules! fused_texts {
    ($($own:tt),* $(,)?) => {
        texts!(
            "shared/prelude",
            "shared/activation",
            bijector,
            "shared/optimiser_state",
            "fused/layout",
            "fused/product",
            "fused/rows",
            "fused/network",
            "fused/coupling",
            "fused/actnorm",
            "fused/lu",
            "fused/permutation",
            base,
            $($own),*
        )
    };
}

const LINEAR_FORWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "shared/activation",
    "layered/tile",
    "layered/layer",
    "layered/network",
    "layered/product",
    "layered/linear"
);
const LINEAR_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "shared/activation",
    "layered/tile",
    "layered/layer",
    "layered/network",
    "layered/network_gradient",
    "layered/gradient",
    "layered/linear_backward"
);
const COUPLING: &[&str] = texts!(
    "shared/prelude",
    "shared/activation",
    bijector,
    "layered/tile",
    "layered/layer",
    "layered/log_dets",
    "layered/network",
    "layered/product",
    "layered/coupling"
);
const FIRST_LAYER_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "shared/activation",
    bijector,
    "layered/tile",
    "layered/layer",
    "layered/network",
    "layered/network_gradient",
    "layered/gradient",
    "layered/factor",
    "layered/through",
    "layered/first_layer_backward"
);
const ELEMENTWISE: &[&str] =
    texts!("shared/prelude", bijector, "layered/layer", "layered/log_dets", "layered/elementwise");
const ELEMENTWISE_BACKWARD_TEXTS: &[&str] =
    texts!("shared/prelude", bijector, "layered/layer", "layered/factor", "layered/elementwise_backward");
const ACTNORM: &[&str] = texts!("shared/prelude", "layered/layer", "layered/log_dets", "layered/actnorm");
const ACTNORM_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    bijector,
    "layered/layer",
    "layered/factor",
    "layered/through",
    "layered/actnorm_backward"
);
const LU_FORWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "layered/tile",
    "layered/layer",
    "layered/log_dets",
    "layered/triangle",
    "layered/product",
    "layered/lu"
);
const LU_INVERSE_TEXTS: &[&str] =
    texts!("shared/prelude", "layered/layer", "layered/log_dets", "layered/lu_inverse");
const LU_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    bijector,
    "layered/tile",
    "layered/layer",
    "layered/triangle",
    "layered/triangle_gradient",
    "layered/gradient",
    "layered/factor",
    "layered/through",
    "layered/lu_backward"
);
const REORDER_TEXTS: &[&str] =
    texts!("shared/prelude", "layered/layer", "layered/log_dets", "layered/reorder");
const REORDER_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    bijector,
    "layered/layer",
    "layered/factor",
    "layered/through",
    "layered/reorder_backward"
);
const DENSITY: &[&str] = texts!(
    "shared/prelude",
    bijector,
    "layered/lanes",
    "layered/layer",
    "layered/factor",
    "layered/through",
    "layered/determinant",
    "layered/density"
);
const MIXTURE_WHITEN_TEXTS: &[&str] =
    texts!("shared/prelude", "layered/layer", "layered/mixture", "layered/mixture_whiten");
const MIXTURE_DENSITY_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "layered/lanes",
    "layered/spread",
    "layered/layer",
    "layered/mixture",
    "shared/mixture",
    "layered/factor",
    "layered/determinant",
    "layered/mixture_density"
);
const MIXTURE_BACKWARD_TEXTS: &[&str] = texts!(
    "shared/prelude",
    bijector,
    "layered/layer",
    "layered/mixture",
    "shared/mixture",
    "layered/factor",
    "layered/through",
    "layered/mixture_backward"
);
const LATENT: &[&str] = texts!("shared/random", "shared/normal", "layered/latent");
const MIXTURE_NOISE_TEXTS: &[&str] =
    texts!("shared/prelude", "shared/random", "shared/normal", "shared/mixture", "layered/mixture_noise");
const PERMUTATION: &[&str] = texts!("shared/random", "shared/permutation");
const WEIGH_TEXTS: &[&str] =
    texts!("shared/prelude", "shared/random", "shared/optimiser_state", "shared/sum", "training/weigh");
const BATCH: &[&str] = texts!("shared/prelude", "shared/random", "shared/optimiser_state", "training/batch");
const REDUCE: &[&str] = texts!("shared/optimiser_state", "shared/sum", "training/reduce");
const ADAM: &[&str] =
    texts!("shared/prelude", "shared/optimiser_state", "shared/optimiser", "shared/sum", "training/adam");
const EPOCH: &[&str] = texts!("shared/prelude", "shared/optimiser_state", "shared/sum", "training/epoch");
const FUSED_FLOW_TEXTS: &[&str] = fused_texts!("fused/evaluate", "fused/flow");
const FUSED_SAMPLE_TEXTS: &[&str] =
    fused_texts!("shared/random", "shared/normal", base_draw, "fused/evaluate", "fused/sample");
const FUSED_GRADIENT_TEXTS: &[&str] = fused_texts!(
    "shared/random",
    "fused/backward",
    base_backward,
    "fused/coupling_backward",
    "fused/actnorm_backward",
    "fused/lu_backward",
    "fused/gradient",
);
const FUSED_SUM_TEXTS: &[&str] = texts!("shared/optimiser_state", "shared/sum", "fused/layout", "fused/sum");
const FUSED_ADAM_TEXTS: &[&str] = texts!(
    "shared/prelude",
    "shared/optimiser_state",
    "shared/optimiser",
    "shared/sum",
    "fused/layout",
    "fused/adam"
);

/// What the fused kernels leave open: the sizes of a workgroup, see `shaders/fused/rows.wgsl`.
const BLOCKS: &[Constant] = &[
    ("ROWS", 16),
    ("THREADS", 64),
    ("QUADS", 1),
    ("SLICES", 4),
    ("OUTPUT_SLICES", 4),
    ("THETA", 8),
    ("D_THETA", 2),
    ("WIDTH", 16),
    ("TILES", 2),
    ("TEAMS", 1),
    ("SPARE_TILE", 0),
    ("RESIDUAL", 0),
    ("WEIGHTED", 0),
    ("UNROLLED", 4),
    ("ROW_BLOCKS", 1),
    ("COLUMN_BLOCKS", 1),
    ("ACTIVATION", 0),
    (BIJECTOR, 0),
    BINS,
    (BASE, 0),
    COMPONENTS,
];

/// What a module that reads a layer's uniform leaves open, then what else is named: the number of networks; whether the
/// layer is their first or last, and how many numbers of θ a last one yields for each feature; the activation, whether the
/// layer's inputs go through it, and whether a skip connection adds to its result; which triangle of an LU layer it is; what
/// is differentiated; whether a gradient is passed on through the coupling before; and which bijector there is.
macro_rules! layer {
    ($($constant:expr),* $(,)?) => {
        &[
            ("NETWORKS", 2),
            ("FIRST", 0),
            ("LAST", 0),
            ("NETWORK_NUMBERS", 1),
            ("ACTIVATION", 0),
            ("ACTIVATED", 1),
            ("ADDS", 0),
            ("UPPER", 0),
            ("FACTOR", 0),
            ("THROUGH", 1),
            (BIJECTOR, 0),
            BINS,
            $($constant),*
        ]
    };
}

const LAYER: &[Constant] = layer!();

/// What sums over rows leave open: whether rows have weights.
const SUMMED: &[Constant] = &[("WEIGHTED", 0)];

/// The same, and the tile; see `shaders/layered/tile.wgsl`.
const TILED: &[Constant] = layer!(
    ("TILE_ROWS", 64),
    ("TILE_COLUMNS", 64),
    ("TILE_DEPTH", 16),
    ("BLOCK_ROWS", 4),
    ("BLOCK_COLUMNS", 4),
);

macro_rules! constants {
    () => {
        &[]
    };
    ($constants:expr) => {
        $constants
    };
}

macro_rules! kernels {
    ($($constant:ident = $name:literal, $texts:expr, [$($number:literal $access:ident $binding:literal),* $(,)?]
        $(, $constants:expr)?;)*) => {
        $(
            #[doc = concat!("Entry point `", $name, "`.")]
            pub static $constant: Kernel = Kernel {
                name: $name,
                texts: $texts,
                bindings: &[$(Binding { number: $number, name: $binding, access: Access::$access }),*],
                constants: constants!($($constants)?),
            };
        )*
        /// Every entry point.
        pub static KERNELS: &[&Kernel] = &[$(&$constant),*];
    };
}

kernels! {
    LINEAR_FORWARD = "linear_forward", LINEAR_FORWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order",
        5 ReadWrite "destination", 6 Read "skip",
    ], TILED;
    LINEAR_BACKWARD = "linear_backward", LINEAR_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order",
        5 Read "d_output", 6 ReadWrite "partials", 7 ReadWrite "destination",
    ], TILED;
    COUPLING_FORWARD = "coupling_forward", COUPLING, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order", 5 Read "rows",
        6 ReadWrite "destination", 7 ReadWrite "log_dets", 8 ReadWrite "saved",
    ], TILED;
    COUPLING_INVERSE = "coupling_inverse", COUPLING, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order", 5 Read "rows",
        6 ReadWrite "destination", 7 ReadWrite "log_dets", 8 ReadWrite "saved",
    ], TILED;
    FIRST_LAYER_BACKWARD = "first_layer_backward", FIRST_LAYER_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order",
        5 Read "d_output", 6 ReadWrite "partials", 7 Read "saved", 8 ReadWrite "d_coupling",
    ], TILED;
    ELEMENTWISE_FORWARD = "elementwise_forward", ELEMENTWISE, [
        0 Uniform "layer", 1 Read "extent", 4 Read "order", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets", 8 Read "theta",
    ], LAYER;
    ELEMENTWISE_INVERSE = "elementwise_inverse", ELEMENTWISE, [
        0 Uniform "layer", 1 Read "extent", 4 Read "order", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets", 8 Read "theta",
    ], LAYER;
    ELEMENTWISE_BACKWARD = "elementwise_backward", ELEMENTWISE_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 3 Read "source", 4 Read "order", 5 Read "theta",
        6 ReadWrite "d_coupling", 7 ReadWrite "d_theta",
    ], LAYER;
    ACTNORM_FORWARD = "actnorm_forward", ACTNORM, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets",
    ], LAYER;
    ACTNORM_INVERSE = "actnorm_inverse", ACTNORM, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets",
    ], LAYER;
    ACTNORM_BACKWARD = "actnorm_backward", ACTNORM_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order",
        6 ReadWrite "partials", 7 Read "saved", 8 ReadWrite "d_coupling",
    ], LAYER;
    LU_FORWARD = "lu_forward", LU_FORWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 5 Read "rows",
        6 ReadWrite "destination", 7 ReadWrite "log_dets",
    ], TILED;
    LU_INVERSE = "lu_inverse", LU_INVERSE_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets",
    ], LAYER;
    LU_BACKWARD = "lu_backward", LU_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order",
        5 Read "d_output", 6 ReadWrite "partials", 7 Read "saved", 8 ReadWrite "d_coupling",
    ], TILED;
    REORDER = "reorder", REORDER_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 4 Read "order", 5 Read "rows", 6 ReadWrite "destination",
        7 ReadWrite "log_dets",
    ], LAYER;
    REORDER_BACKWARD = "reorder_backward", REORDER_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 3 Read "source", 4 Read "order", 5 Read "d_output", 7 Read "saved",
        8 ReadWrite "d_coupling",
    ], LAYER;
    GATHER = "gather", BATCH, [
        0 Uniform "rules", 1 Read "state", 3 Read "data", 4 ReadWrite "batch",
    ];
    TAKE = "take", BATCH, [
        0 Uniform "rules", 2 Read "extent", 3 Read "data", 4 ReadWrite "batch",
    ];
    WEIGH = "weigh", WEIGH_TEXTS, [
        0 Uniform "rules", 1 Read "state", 2 Read "weights", 3 ReadWrite "batch_weights", 4 ReadWrite "d_coupling",
    ];
    LOG_DENSITY = "log_density", DENSITY, [
        0 Uniform "layer", 1 Read "extent", 3 Read "source", 9 Read "log_dets", 10 ReadWrite "log_prob",
        11 ReadWrite "log_det",
    ], LAYER;
    LOG_DETERMINANT = "log_determinant", DENSITY, [
        0 Uniform "layer", 1 Read "extent", 9 Read "log_dets", 11 ReadWrite "log_det",
    ], LAYER;
    LOG_DENSITY_BACKWARD = "log_density_backward", DENSITY, [
        0 Uniform "layer", 1 Read "extent", 3 Read "source", 4 Read "order", 7 Read "saved",
        8 ReadWrite "d_coupling", 9 Read "log_dets", 10 ReadWrite "log_prob",
    ], LAYER;
    MIXTURE_WHITEN = "mixture_whiten", MIXTURE_WHITEN_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 5 ReadWrite "whitened",
    ], LAYER;
    MIXTURE_DENSITY = "mixture_density", MIXTURE_DENSITY_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 5 ReadWrite "whitened", 9 Read "log_dets",
        10 ReadWrite "log_prob", 11 ReadWrite "log_det",
    ], LAYER;
    MIXTURE_RESPONSIBILITIES = "mixture_responsibilities", MIXTURE_DENSITY_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 5 ReadWrite "whitened", 8 Read "d_coupling",
        9 Read "log_dets", 10 ReadWrite "log_prob",
    ], LAYER;
    MIXTURE_BACKWARD = "mixture_backward", MIXTURE_BACKWARD_TEXTS, [
        0 Uniform "layer", 1 Read "extent", 2 Read "parameters", 3 Read "source", 4 Read "order", 5 Read "whitened",
        6 ReadWrite "partials", 7 Read "saved", 8 ReadWrite "d_coupling",
    ], LAYER;
    SUM_PARTIALS = "sum_partials", REDUCE, [
        0 Uniform "rules", 1 Read "partials", 2 ReadWrite "gradient", 3 ReadWrite "norms",
    ];
    ADVANCE = "advance", ADAM, [
        0 Uniform "rules", 1 ReadWrite "state", 2 Read "norms", 3 Read "log_prob", 9 Read "row_weights",
    ], SUMMED;
    ADAM_UPDATE = "adam", ADAM, [
        0 Uniform "rules", 4 Read "update", 5 Read "gradient", 6 ReadWrite "parameters", 7 ReadWrite "moment1",
        8 ReadWrite "moment2",
    ], SUMMED;
    ACCUMULATE = "accumulate", EPOCH, [
        0 Uniform "rules", 2 Read "log_prob", 3 ReadWrite "validation", 8 Read "row_weights",
    ], SUMMED;
    CLOSE_EPOCH = "close_epoch", EPOCH, [
        0 Uniform "rules", 1 ReadWrite "state", 3 ReadWrite "validation", 4 ReadWrite "history",
    ], SUMMED;
    KEEP_BEST = "keep_best", EPOCH, [
        0 Uniform "rules", 5 Read "verdict", 6 Read "parameters", 7 ReadWrite "best",
    ], SUMMED;
    LATENT_NOISE = "latent_noise", LATENT, [
        0 Uniform "latent_args", 1 Read "normal_table", 2 ReadWrite "latent",
    ];
    MIXTURE_NOISE = "mixture_noise", MIXTURE_NOISE_TEXTS, [
        0 Uniform "latent_args", 1 Read "normal_table", 2 ReadWrite "latent", 3 Read "parameters",
    ];
    PERMUTE = "permutation", PERMUTATION, [
        0 Uniform "permutation_args", 1 ReadWrite "places",
    ];
    FUSED_FORWARD = "fused_forward", FUSED_FLOW_TEXTS, [
        0 Uniform "fused", 1 Read "roles", 2 Read "packed", 3 Read "extent", 4 Read "source",
        5 ReadWrite "destination", 6 ReadWrite "log_det", 7 ReadWrite "log_prob",
    ], BLOCKS;
    FUSED_INVERSE = "fused_inverse", FUSED_FLOW_TEXTS, [
        0 Uniform "fused", 1 Read "roles", 2 Read "packed", 3 Read "extent", 4 Read "source",
        5 ReadWrite "destination", 6 ReadWrite "log_det",
    ], BLOCKS;
    FUSED_SAMPLE = "fused_sample", FUSED_SAMPLE_TEXTS, [
        0 Uniform "fused", 1 Read "roles", 2 Read "packed", 3 Read "request", 4 Read "normal_table",
        5 ReadWrite "destination", 6 Read "source",
    ], BLOCKS;
    FUSED_GRADIENT = "fused_gradient", FUSED_GRADIENT_TEXTS, [
        0 Uniform "fused", 1 Read "roles", 2 Read "packed", 3 Read "state", 4 Read "data", 5 ReadWrite "saved",
        6 ReadWrite "partials", 7 ReadWrite "report", 8 Read "row_weights",
    ], BLOCKS;
    FUSED_SUM = "fused_sum", FUSED_SUM_TEXTS, [
        0 Uniform "fused", 1 Read "slot_places", 2 Read "partials", 3 ReadWrite "gradient", 4 Read "report",
    ], SUMMED;
    FUSED_ADAM = "fused_adam", FUSED_ADAM_TEXTS, [
        0 Uniform "fused", 1 Read "report", 2 Read "places", 3 Read "gradient", 4 ReadWrite "state",
        5 ReadWrite "parameters", 6 ReadWrite "moment1", 7 ReadWrite "moment2", 8 ReadWrite "packed",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stand_before_the_text_at_their_defaults_or_as_given() {
        static KERNEL: Kernel = Kernel {
            name: "example",
            texts: &["first", "second"],
            bindings: &[],
            constants: &[("ROWS", 16), ("WIDTH", 64)],
        };
        assert_eq!(KERNEL.source(), "const ROWS: u32 = 16u;\nconst WIDTH: u32 = 64u;\nfirst\nsecond");
        assert_eq!(
            KERNEL.specialised(&[("WIDTH", 7)]),
            "const ROWS: u32 = 16u;\nconst WIDTH: u32 = 7u;\nfirst\nsecond"
        );
        assert_eq!(KERNEL.values(&[("WIDTH", 7)]), [16, 7]);
    }
}
