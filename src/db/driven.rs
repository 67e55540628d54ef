//! A connection without a task of its own: whoever awaits a statement also reads and writes the socket.
//!
//! The ordinary way costs two more wake-ups a statement, from the waiting task to the connection's and back; for a
//! lane, which has one statement in flight and nothing else to do, they are latency and nothing else.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use diesel_async::AsyncPgConnection;
use futures_util::task::AtomicWaker;

use super::sqlstate::LastState;

/// Nobody polls.
const IDLE: u8 = 0;
/// Someone polls.
const POLLING: u8 = 1;
/// A wake-up came since the last poll began; set beside the others.
const WOKEN: u8 = 2;
/// How often a poll is repeated at once before its task gives way to others.
const REPEATS: usize = 8;

/// What moves the bytes of a connection. It ends with the connection.
pub(in crate::db) struct Driver {
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    bell: Arc<Bell>,
}

/// A connection with its driver.
pub(in crate::db) struct Driven {
    pub conn: AsyncPgConnection,
    pub driver: Driver,
    /// The code of its last error.
    pub last_error: LastState,
}

/// Wakes the task that drives, except while that polls: then the poll is repeated.
///
/// A statement and its connection wake each other all the time, and here both are one task. The runtime would take that
/// for a task that gives way: it queues it again and wakes another thread to take it, for nothing.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & POLLING == 0 {
            self.task.wake();
        }
    }
}

impl Bell {
    /// Everything will be polled after this: what woke before needs no repetition.
    fn begin(&self) {
        self.state.store(POLLING, Ordering::Release);
    }

    /// Whether nothing woke since the beginning. From now on the task is woken.
    fn rests(&self) -> bool {
        self.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn end(&self) {
        self.state.store(IDLE, Ordering::Release);
    }
}

impl Driver {
    pub fn new(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { connection: Some(Box::pin(connection)), bell: Arc::default() }
    }

    /// Awaits `work`, which uses the driver's connection. Dropped midway, the connection must not be used again.
    ///
    /// A statement and its connection wake the task again in its own poll, and the runtime wakes another thread to take it.
    /// Where nothing else is underway that thread is the sooner at the answer: see docs/performance.md.
    pub async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = self.poll(work.as_mut(), cx);
            self.bell.end();
            polled
        })
        .await
    }

    /// As [`Driver::drive`], and no other thread is woken by it.
    pub async fn drive_alone<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let waker = Waker::from(Arc::clone(&self.bell));
        poll_fn(|cx| {
            self.bell.task.register(cx.waker());
            let mut inner = Context::from_waker(&waker);
            for _ in 0..REPEATS {
                let polled = self.poll(work.as_mut(), &mut inner);
                if polled.is_ready() {
                    self.bell.end();
                    return polled;
                }
                if self.bell.rests() {
                    return Poll::Pending;
                }
            }
            self.bell.end();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Looks whether the connection has ended while nobody awaited anything of it, and from now on [`Driver::poll_ended`]
    /// is woken by its end.
    pub fn look(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        self.bell.state.store(IDLE, Ordering::Release);
        self.bell.task.register(cx.waker());
        let waker = Waker::from(Arc::clone(&self.bell));
        if connection.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            return Poll::Pending;
        }
        self.connection = None;
        Poll::Ready(())
    }

    /// The end of the connection while nobody awaits anything of it. As long as nothing comes it costs one look at
    /// memory.
    pub fn poll_ended(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.bell.state.load(Ordering::Acquire) & WOKEN == 0 {
            return Poll::Pending;
        }
        self.look(cx)
    }

    fn poll<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>, cx: &mut Context<'_>) -> Poll<T> {
        self.bell.begin();
        // What the work has queued is sent in the same turn, and what has come is handed to it.
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        let Some(connection) = self.connection.as_mut() else { return Poll::Pending };
        self.bell.begin();
        if connection.as_mut().poll(cx).is_ready() {
            self.connection = None;
        }
        work.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_drives_is_woken_from_outside_and_not_by_itself() {
        let (ask, mut asked) = mpsc::unbounded_channel::<u32>();
        let (answer, mut answered) = mpsc::unbounded_channel();
        let (network, mut arrives) = mpsc::unbounded_channel::<()>();
        let mut driver = Driver::new(async move {
            while let Some(n) = asked.recv().await {
                arrives.recv().await;
                let _ = answer.send(n + 1);
            }
        });
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let work = async {
            ask.send(1).unwrap();
            let first = answered.recv().await.unwrap();
            ask.send(first).unwrap();
            answered.recv().await.unwrap()
        };
        let mut driven = Box::pin(driver.drive_alone(work));
        assert!(driven.as_mut().poll(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "the question woke the task that had asked it");
        network.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "what comes from outside wakes it");
        // The answer and the next question lie in one poll.
        assert!(driven.as_mut().poll(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        network.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(driven.as_mut().poll(&mut cx), Poll::Ready(3));
    }

    #[test]
    fn an_end_that_nobody_waited_for_is_noticed() {
        let (network, mut arrives) = mpsc::unbounded_channel::<()>();
        let mut driver = Driver::new(async move { while arrives.recv().await.is_some() {} });
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        assert!(driver.look(&cx).is_pending() && driver.poll_ended(&cx).is_pending());
        network.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "something came");
        assert!(driver.poll_ended(&cx).is_pending(), "and was no end");
        drop(network);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(driver.poll_ended(&cx).is_ready());
        assert!(driver.look(&cx).is_ready());
    }

    #[test]
    fn what_never_rests_gives_way() {
        let mut driver = Driver::new(std::future::pending());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let restless = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let mut driven = Box::pin(driver.drive_alone(restless));
        assert!(driven.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_from_another_thread_is_lost() {
        let (ask, mut asked) = mpsc::unbounded_channel::<u32>();
        let (answer, mut answered) = mpsc::unbounded_channel();
        let (post, posted) = std::sync::mpsc::channel::<(oneshot::Sender<u32>, u32)>();
        // Answers at any moment of the poll.
        let other = std::thread::spawn(move || posted.into_iter().try_for_each(|(done, n)| done.send(n)));
        let mut driver = Driver::new(async move {
            while let Some(n) = asked.recv().await {
                let (done, ready) = oneshot::channel();
                post.send((done, n)).unwrap();
                let _ = answer.send(ready.await.unwrap());
            }
        });
        let all = async {
            for n in 0..20_000 {
                ask.send(n).unwrap();
                assert_eq!(answered.recv().await, Some(n));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), driver.drive_alone(all)).await.unwrap();
        drop(driver);
        assert_eq!(other.join().unwrap(), Ok(()));
    }
}
