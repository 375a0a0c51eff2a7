//! Where the calls of an HTTP/2 connection run: tasks that end with their connection.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use hyper::rt;
use tokio::task::JoinSet;

/// The tasks of one connection's calls. Dropping it aborts them.
#[derive(Default)]
pub(super) struct CallTasks(Arc<Mutex<JoinSet<()>>>);

/// Spawns a connection's calls among its tasks. Each task holds one of these, so the reference is
/// weak: otherwise the tasks would keep themselves alive. Once the tasks are gone, so is a new
/// call.
#[derive(Clone)]
pub(super) struct CallExecutor(Weak<Mutex<JoinSet<()>>>);

impl CallTasks {
    pub(super) fn executor(&self) -> CallExecutor {
        CallExecutor(Arc::downgrade(&self.0))
    }

    /// Drives the connection, and frees the tasks of calls that have ended.
    pub(super) async fn drive<C: Future>(&self, mut connection: Pin<&mut C>) -> C::Output {
        std::future::poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            // After the connection, which may have spawned the first task: an empty set wakes
            // nobody.
            self.reap(cx);
            ended
        })
        .await
    }

    fn reap(&self, cx: &mut Context<'_>) {
        let mut tasks = lock(&self.0);
        while let Poll::Ready(Some(_ended)) = tasks.poll_join_next(cx) {}
    }

    /// Aborts the tasks that are left, and waits until each of them is gone.
    pub(super) async fn shutdown(&self) {
        let mut tasks = mem::take(&mut *lock(&self.0));
        tasks.shutdown().await;
    }
}

impl<F> rt::Executor<F> for CallExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        if let Some(tasks) = self.0.upgrade() {
            lock(&tasks).spawn(call);
        }
    }
}

fn lock(tasks: &Mutex<JoinSet<()>>) -> MutexGuard<'_, JoinSet<()>> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use hyper::rt::Executor as _;
    use tokio::task::yield_now;

    use super::*;

    /// A call that never ends, and holds this.
    fn endless(held: &Arc<()>) -> impl Future<Output = ()> + Send + 'static {
        let held = Arc::clone(held);
        async move {
            pending::<()>().await;
            drop(held);
        }
    }

    fn len(tasks: &CallTasks) -> usize {
        lock(&tasks.0).len()
    }

    #[tokio::test]
    async fn calls_end_with_their_connection() {
        let held = Arc::new(());
        let tasks = CallTasks::default();
        let executor = tasks.executor();
        executor.execute(endless(&held));
        yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2);
        drop(tasks);
        super::super::super::testing::until(|| Arc::strong_count(&held) == 1).await;
        executor.execute(endless(&held));
        assert_eq!(Arc::strong_count(&held), 1, "a call of no connection");
    }

    #[tokio::test]
    async fn a_shutdown_leaves_no_task_behind() {
        let held = Arc::new(());
        let tasks = CallTasks::default();
        tasks.executor().execute(endless(&held));
        yield_now().await;
        tasks.shutdown().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn calls_that_have_ended_are_freed_while_the_connection_goes_on() {
        let tasks = CallTasks::default();
        let executor = tasks.executor();
        let connection = async {
            executor.execute(ready(()));
            pending::<()>().await;
        };
        let connection = pin!(connection);
        let driven = tasks.drive(connection);
        tokio::select! {
            biased;
            () = driven => {}
            () = super::super::super::testing::until(|| len(&tasks) == 0) => {}
        }
    }
}
