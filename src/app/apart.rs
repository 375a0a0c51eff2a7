//! A task on a thread and a runtime of its own, so that nothing it does delays the thread that serves.

use std::panic::resume_unwind;
use std::time::Duration;

use rustix::thread::set_name;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// How long a write to the disk that is under way may still take once the task was cut off.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Runs `task` apart until it ends, and panics as it panics. Dropping this, or cancelling `cut_off`,
/// ends the task where it awaits.
///
/// The thread is one of the runtime's for blocking work, so that the end of the process waits for its
/// last write as it does for theirs.
pub(super) async fn apart(
    task: impl Future<Output = ()> + Send + 'static,
    cut_off: CancellationToken,
) {
    let _cut_off_when_dropped = cut_off.clone().drop_guard();
    let thread = spawn_blocking(move || run(task, &cut_off));
    if let Err(error) = thread.await
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
    }
}

fn run(task: impl Future<Output = ()> + Send + 'static, cut_off: &CancellationToken) {
    // Its priority stays as it is: a niced thread starves on a machine that is busy with other things,
    // and the token with it. On one core it delays a read by no more than its turn, some milliseconds.
    let _unnamed = set_name(c"keeper");
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread needs nothing that a process lacks");
    let mut tasks = JoinSet::new();
    tasks.spawn_on(task, runtime.handle());
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = tasks.join_next() => ended,
            () = cut_off.cancelled() => None,
        }
    });
    drop(tasks);
    match ended {
        // What still hangs now is a file that was read, or a name that was looked up.
        Some(_) => runtime.shutdown_background(),
        None => runtime.shutdown_timeout(LAST_WRITE),
    }
    if let Some(Err(error)) = ended {
        resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_task_that_blocks_its_thread_blocks_no_other() {
        let (begin, begun) = oneshot::channel();
        let (release, released) = mpsc::channel();
        let mut tasks = JoinSet::new();
        let blocked = async move {
            begin.send(()).unwrap();
            released.recv().unwrap();
        };
        tasks.spawn(apart(blocked, CancellationToken::new()));
        begun.await.unwrap();
        // This thread goes on while that one cannot.
        assert!(tasks.try_join_next().is_none());
        release.send(()).unwrap();
        tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_passed_on() {
        let mut tasks = JoinSet::new();
        tasks.spawn(apart(async { panic!("a bug") }, CancellationToken::new()));
        let ended = tasks.join_next().await.unwrap().unwrap_err();
        assert_eq!(ended.into_panic().downcast_ref(), Some(&"a bug"));
    }

    /// Ends when the task that holds the other end was dropped.
    fn endless() -> (oneshot::Receiver<()>, impl Future<Output = ()> + Send) {
        let (held, dropped) = oneshot::channel::<()>();
        let task = async move {
            let _held = held;
            pending::<()>().await;
        };
        (dropped, task)
    }

    #[tokio::test]
    async fn it_ends_when_it_is_cut_off_and_when_nobody_waits_for_it() {
        let (dropped, task) = endless();
        let cut_off = CancellationToken::new();
        cut_off.cancel();
        apart(task, cut_off).await;
        assert!(dropped.await.is_err());

        let (dropped, task) = endless();
        let mut tasks = JoinSet::new();
        tasks.spawn(apart(task, CancellationToken::new()));
        tokio::task::yield_now().await;
        tasks.shutdown().await;
        assert!(dropped.await.is_err());
    }
}
