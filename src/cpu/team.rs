//! Threads that work on one thing after another and stay awake in between.
//!
//! A training step has three parallel regions of a few hundred microseconds, between which a sleeping thread would have
//! to be woken: that takes as long as the region. So the threads of a rayon pool are borrowed for the whole of a
//! training, and wait by spinning, then by yielding.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::yield_now;

/// Turns of a waiting thread before it offers its core to others: some ten microseconds.
const SPINS: u32 = 2000;

/// What a team works on.
pub(super) type Job<'a> = &'a (dyn Fn() + Sync);

/// The threads of a rayon pool, for as long as [`Team::gather`] runs.
pub(super) struct Team {
    board: Mutex<Board>,
    /// Jobs posted so far; what a waiting thread looks at.
    round: AtomicUsize,
    /// Threads at work on the job, beside the one that posted it.
    active: AtomicUsize,
    dismissed: AtomicBool,
}

#[derive(Default)]
struct Board {
    job: Option<Job<'static>>,
}

impl Team {
    /// Runs `lead` on a thread of the current pool, with the pool's other threads at its disposal.
    pub fn gather<T: Send>(lead: impl FnOnce(&Team) -> T + Send) -> T {
        let team = Team {
            board: Mutex::default(),
            round: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            dismissed: AtomicBool::new(false),
        };
        rayon::scope(|scope| {
            // Also where `lead` panics: the scope waits for the threads.
            let _dismissal = OnDrop(|| team.dismissed.store(true, Ordering::Release));
            for _ in 1..rayon::current_num_threads() {
                scope.spawn(|_| team.follow());
            }
            lead(&team)
        })
    }

    /// Calls `work` on every item, on all threads; which thread takes which item is not defined.
    pub fn each<I>(&self, items: I, work: impl Fn(I::Item) + Sync)
    where
        I: IntoIterator<IntoIter: Send>,
    {
        let items = Mutex::new(items.into_iter());
        self.run(&|| {
            loop {
                let next = unpoisoned(&items).next();
                let Some(item) = next else { break };
                work(item);
            }
        });
    }

    /// Runs `job` on this thread and on every other that comes before it is done.
    pub fn run(&self, job: Job<'_>) {
        // SAFETY: the lifetime is only forgotten. Below, and also where `job` panics, this function does not end before
        // the job is off the board and no thread is at work on it: a thread takes it from the board under the lock and
        // counts itself as active before it lets go of the lock.
        let posted = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        unpoisoned(&self.board).job = Some(posted);
        self.round.fetch_add(1, Ordering::Release);
        let _finish = OnDrop(|| {
            unpoisoned(&self.board).job = None;
            wait_until(|| self.active.load(Ordering::Acquire) == 0);
        });
        job();
    }

    /// Takes part in every job until the team is dismissed.
    fn follow(&self) {
        let mut seen = 0;
        loop {
            let mut round = seen;
            wait_until(|| {
                round = self.round.load(Ordering::Acquire);
                round != seen || self.dismissed.load(Ordering::Acquire)
            });
            if round == seen {
                return;
            }
            seen = round;
            let job = {
                let board = unpoisoned(&self.board);
                if board.job.is_some() {
                    self.active.fetch_add(1, Ordering::Relaxed);
                }
                board.job
            };
            if let Some(job) = job {
                let _leave = OnDrop(|| {
                    self.active.fetch_sub(1, Ordering::Release);
                });
                job();
            }
        }
    }
}

/// A lock whose holder cannot have left anything half-done: no panic while it is held, or a value no one reads after.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn wait_until(mut ready: impl FnMut() -> bool) {
    let mut spins = 0;
    while !ready() {
        if spins < SPINS {
            spins += 1;
            spin_loop();
        } else {
            yield_now();
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
    }

    #[test]
    fn every_item_is_worked_on_once_in_job_after_job() {
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                let mut values = vec![0u32; 1000];
                Team::gather(|team| {
                    for _ in 0..200 {
                        team.each(values.chunks_mut(7), |chunk| {
                            chunk.iter_mut().for_each(|value| *value += 1)
                        });
                    }
                });
                assert_eq!(values, [200; 1000], "{threads} threads");
            });
        }
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller() {
        for bad in 0..8 {
            let outcome = std::panic::catch_unwind(|| {
                pool(3).install(|| Team::gather(|team| team.each(0..8, |item| assert_ne!(item, bad))));
            });
            assert!(outcome.is_err(), "item {bad}");
        }
    }

    #[test]
    fn several_threads_take_part() {
        use std::sync::Barrier;
        let barrier = Barrier::new(2);
        // Each of two items waits for the other, which must be on another thread.
        pool(2).install(|| {
            Team::gather(|team| {
                for _ in 0..100 {
                    team.each(0..2, |_| {
                        barrier.wait();
                    });
                }
            });
        });
    }
}
