//! What a plan of the score function ∇ₓ log p is, `capacity` rows at a time: forward, and back to the rows, without gradients
//! of parameters. [`layered`](super::layered) makes such plans; the fused plan has none.

use super::plan::{BufferId, Plan, ProgramId};

/// Buffers and a program with which the score function is computed.
#[derive(Clone, Debug)]
pub struct ScorePlan {
    /// The plan itself.
    pub plan: Plan,
    /// Rows computed at a time.
    pub capacity: usize,
    /// Rows that hold data: [`Extent`](super::uniforms::Extent).
    pub extent: BufferId,
    /// Parameters `[P]`.
    pub parameters: BufferId,
    /// Rows x [capacity, D].
    pub input: BufferId,
    /// log p `[capacity]`.
    pub log_prob: BufferId,
    /// Its gradient at the rows, at the start of this buffer [capacity, D].
    pub score: BufferId,
    /// x → log p and its gradient.
    pub program: ProgramId,
}
