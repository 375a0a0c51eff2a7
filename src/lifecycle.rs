//! How a process ends: when it is told to, or when something that must not end has ended.
//!
//! Everything long-lived runs in a [`Stage`]. The stages drain one after the other, all within one deadline, of which the first may
//! take three quarters; what is left then is aborted. A second signal does not wait for any of it.

pub mod notify;
mod signals;

use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use signals::Signals;

/// Tasks that live as long as the process, and that drain together.
pub struct Stage {
    tasks: JoinSet<&'static str>,
    drain: CancellationToken,
}

/// A task that should have lived as long as the process has ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It returned.
    #[error("the {name} has ended, which it never should")]
    Returned {
        /// Which task.
        name: &'static str,
    },
    /// It panicked.
    #[error("a long-lived task has panicked")]
    Panicked(#[source] JoinError),
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// A stage without tasks.
    pub fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            drain: CancellationToken::new(),
        }
    }

    /// Tells the stage's tasks that they should finish.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Begins a task. It ends after the stage's drain begins, and never before.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Begins the drain and waits for the last task.
    async fn drained(&mut self) {
        self.drain.cancel();
        while self.ended().await.is_some() {}
    }

    async fn ended(&mut self) -> Option<Ended> {
        Some(match self.tasks.join_next().await? {
            Ok(name) => Ended::Returned { name },
            Err(error) => Ended::Panicked(error),
        })
    }
}

/// Serves until `stop`, or until a task ends by itself, which is an error; then drains the stages in their order.
pub async fn run(
    mut stages: [Stage; 3],
    stop: CancellationToken,
    deadline: Duration,
) -> Result<(), Ended> {
    let [first, second, third] = &mut stages;
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        Some(ended) = first.ended() => Some(ended),
        Some(ended) = second.ended() => Some(ended),
        Some(ended) = third.ended() => Some(ended),
    };
    match &ended {
        None => info!(deadline_seconds = deadline.as_secs_f64(), "draining"),
        Some(ended) => error!(%ended, "draining"),
    }
    let end = Instant::now() + deadline;
    // Whoever holds a stage up to its end leaves the others a quarter of the time.
    let first_end = end - deadline / 4;
    let ends = [first_end, end, end];
    for (stage, end) in stages.iter_mut().zip(ends) {
        if timeout_at(end, stage.drained()).await.is_err() {
            warn!("the drain has reached its deadline; what is left is cut off");
            stage.tasks.shutdown().await;
        }
    }
    ended.map_or(Ok(()), Err)
}

/// Lets no core file be written of this process, no other process of the same user look into it, and no file that it makes be read by
/// others, whatever it asks for: all of these would show secrets. Called first, before there is a second thread.
pub fn shut_in() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}

/// Lets this process open as many files and sockets as it may at the most, and says how many that is.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A limit that cannot be raised is still the limit.
    let current = if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    current
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    fn until_drained(
        stage: &Stage,
        name: &'static str,
        order: &Arc<Mutex<Vec<&'static str>>>,
    ) -> impl Future<Output = ()> + use<> {
        let (drain, order) = (stage.drain(), Arc::clone(order));
        async move {
            drain.cancelled().await;
            order.lock().unwrap().push(name);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stages_drain_one_after_the_other() {
        let order = Arc::default();
        let stages = ["first", "second", "third"].map(|name| {
            let mut stage = Stage::new();
            stage.spawn(name, until_drained(&stage, name, &order));
            stage
        });
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(run(stages, stop, Duration::from_secs(5)).await.is_ok());
        assert_eq!(*order.lock().unwrap(), ["first", "second", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_brings_everything_down() {
        let order = Arc::default();
        let mut stages = [Stage::new(), Stage::new(), Stage::new()];
        stages[0].spawn("listener", until_drained(&stages[0], "listener", &order));
        stages[1].spawn("keeper", async {});
        let ended = run(stages, CancellationToken::new(), Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(
            ended.to_string(),
            "the keeper has ended, which it never should"
        );
        assert_eq!(*order.lock().unwrap(), ["listener"]);

        let mut stages = [Stage::new(), Stage::new(), Stage::new()];
        stages[1].spawn("keeper", async { panic!("a bug") });
        let ended = run(stages, CancellationToken::new(), Duration::from_secs(5)).await;
        assert!(matches!(ended, Err(Ended::Panicked(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_drain_is_cut_off_at_the_deadline() {
        let mut stages = [Stage::new(), Stage::new(), Stage::new()];
        let order = Arc::default();
        stages[0].spawn("listener", pending());
        stages[1].spawn("keeper", until_drained(&stages[1], "keeper", &order));
        let stop = CancellationToken::new();
        stop.cancel();
        let began = tokio::time::Instant::now();
        assert!(run(stages, stop, Duration::from_secs(5)).await.is_ok());
        assert_eq!(began.elapsed(), Duration::from_millis(3750));
        assert_eq!(
            *order.lock().unwrap(),
            ["keeper"],
            "those behind it have time left"
        );
    }
}
