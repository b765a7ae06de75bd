//! How long each dispatch of a program takes on the device itself, by timestamp queries. For benches: submissions of
//! [`Executor::submit`] carry no timestamps.

use super::executor::Executor;
use super::plan::ProgramId;
use crate::error::{Error, Result};

/// Bytes of a timestamp.
const TIMESTAMP: u64 = wgpu::QUERY_SIZE as u64;
/// Dispatches that a query set has room for: each takes the time when it begins and when it ends.
const MOST_DISPATCHES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

impl Executor {
    /// Runs `program` once and tells the seconds that each of its dispatches took on the device, in order.
    ///
    /// A timestamp stands at the beginning and at the end of a compute pass, so each dispatch has a pass of its own. Its
    /// time includes waiting for what the dispatch before it wrote, but neither recording nor submitting.
    ///
    /// # Errors
    /// [`Error::Device`] where the device has no timestamp queries or is lost.
    pub async fn time(&self, program: ProgramId) -> Result<Vec<f64>> {
        if !self.context().has_timestamps() {
            return Err(Error::Device(format!(
                "{}: the device was opened without TIMESTAMP_QUERY, which timing a dispatch needs; time whole \
                 submissions instead",
                self.context().info()
            )));
        }
        let count = self.dispatches(program);
        let mut seconds = Vec::with_capacity(count);
        for first in (0..count).step_by(MOST_DISPATCHES) {
            let last = count.min(first + MOST_DISPATCHES);
            seconds.extend(self.time_some(program, first..last).await?);
        }
        Ok(seconds)
    }

    /// The same for some of the dispatches, in one submission.
    async fn time_some(&self, program: ProgramId, dispatches: std::ops::Range<usize>) -> Result<Vec<f64>> {
        let (device, queue) = (&self.context().device, &self.context().queue);
        let queries = 2 * dispatches.len() as u32;
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: queries,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: u64::from(queries) * TIMESTAMP,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (query, dispatch) in (0..queries).step_by(2).zip(dispatches) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &set,
                    beginning_of_pass_write_index: Some(query),
                    end_of_pass_write_index: Some(query + 1),
                }),
            });
            self.record(&mut pass, program, dispatch);
        }
        encoder.resolve_query_set(&set, 0..queries, &resolved, 0);
        let (_, reading) = self.submit_copying(encoder, &[(&resolved, resolved.size())]);
        let ticks: Vec<u64> = self.collect(reading).await?.into_iter().flatten().collect();
        let period = 1e-9 * f64::from(queue.get_timestamp_period());
        // A clock may be set back between two queries, which no time comes of.
        Ok(ticks
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[from, to]| period * to.saturating_sub(*from) as f64)
            .collect())
    }
}
