//! One thread a processor, each with connections of its own. What a request needs on its way, its client's
//! connection and the one to the service behind, is served by the same thread, so that no step of it wakes
//! another processor.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::sync::mpsc;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker whose thread this is, from 1; 0: it is none's. For what each of them has apart.
pub fn here() -> usize {
    HERE.get()
}

/// How many there are, by the configuration's word; 0 is one a processor.
pub fn count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

type Job = Box<dyn FnOnce() + Send>;

struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    /// Connections.
    has: Arc<AtomicUsize>,
}

/// Ends with the connections that are left when dropped.
pub struct Workers(Vec<Worker>);

impl Workers {
    /// `beside` is what each does besides its connections.
    pub fn start<F>(count: usize, beside: impl Fn(usize) -> F) -> anyhow::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        (1..=count)
            .map(|number| Worker::start(number, beside(number)))
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// Serves a connection with the worker that has the fewest. The future is made on its thread.
    pub fn serve<F>(&self, connection: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.has.load(Ordering::Relaxed)) else {
            return;
        };
        let one = One::of(worker.has.clone());
        let job = Box::new(move || {
            let serving = connection();
            tokio::spawn(async move {
                serving.await;
                drop(one);
            });
        });
        // It ends only with the process.
        let _ = worker.jobs.send(job);
    }
}

impl Worker {
    fn start(number: usize, beside: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<Self> {
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a worker's runtime cannot be made")?;
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                HERE.set(number);
                runtime.block_on(async {
                    tokio::spawn(beside);
                    while let Some(job) = waiting.recv().await {
                        job();
                    }
                });
                runtime.shutdown_background();
            })
            .context("a worker's thread cannot be started")?;
        Ok(Self { jobs, has: Arc::default() })
    }
}

/// One connection, for as long as it is.
struct One(Arc<AtomicUsize>);

impl One {
    fn of(has: Arc<AtomicUsize>) -> Self {
        has.fetch_add(1, Ordering::Relaxed);
        Self(has)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_are() {
        let workers = Workers::start(3, |_| std::future::ready(())).unwrap();
        let (told, mut heard) = mpsc::unbounded_channel();
        for _ in 0..9 {
            let told = told.clone();
            workers.serve(move || async move {
                let first = here();
                tokio::task::yield_now().await;
                told.send((first, here())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut seen = [0; 4];
        for _ in 0..9 {
            let (first, then) = heard.recv().await.unwrap();
            assert_eq!(first, then);
            seen[first] += 1;
        }
        assert_eq!((seen, here()), ([0, 3, 3, 3], 0));
        // They go with the workers.
        drop((workers, told));
        assert!(heard.recv().await.is_none());
    }
}
