//! The modem on its cable.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::cable::{Cable, Line};
use super::{Counts, Engine, Options};

/// How long [`Modem::stop`] waits.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Bytes that nobody reads before the modem's words are lost.
const UNREAD: usize = 64 * 1024;
/// When nothing is due.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Shared {
    engine: Mutex<Engine>,
    started: Instant,
    changed: Notify,
    counts: watch::Sender<Counts>,
}

impl Shared {
    /// Works with the engine at the present time.
    fn with<R>(&self, work: impl FnOnce(&mut Engine, Duration) -> R) -> R {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.started.elapsed();
        engine.tick(now);
        let result = work(&mut engine, now);
        let counts = engine.counts();
        drop(engine);
        self.counts
            .send_if_modified(|known| std::mem::replace(known, counts) != counts);
        result
    }
}

enum Order {
    Unplug(oneshot::Sender<()>),
    Plug(Cable, oneshot::Sender<io::Result<PathBuf>>),
}

/// A running modem. It stops when this is dropped; [`Modem::stop`] also waits for the end.
#[derive(Debug)]
pub struct Modem {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    path: Mutex<PathBuf>,
    task: Option<JoinHandle<()>>,
}

impl Modem {
    /// Plugs in a modem. Its clock starts now, whatever the options' epoch says.
    pub fn start(options: Options, cable: &Cable) -> io::Result<Self> {
        let line = Line::plug(cable)?;
        let path = line.path().to_owned();
        let engine = Engine::new(Options {
            epoch: Timestamp::now(),
            ..options
        });
        let shared = Arc::new(Shared {
            counts: watch::Sender::new(engine.counts()),
            engine: Mutex::new(engine),
            started: Instant::now(),
            changed: Notify::new(),
        });
        let (orders, taken) = mpsc::channel(4);
        let task = Some(tokio::spawn(run(shared.clone(), line, taken)));
        Ok(Self {
            shared,
            orders,
            path: Mutex::new(path),
            task,
        })
    }

    /// The pseudo-terminal, or the socket's name with `@` in front. It may be another one after each plugging in.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Works with the modem behind the cable: the network, the card, faults. See [`Engine`]'s functions.
    pub fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let result = self.shared.with(|engine, _| work(engine));
        self.shared.changed.notify_one();
        result
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.with(|engine, _| engine.counts())
    }

    /// The same, to wait for a change.
    #[must_use]
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }

    /// Waits until the counts are as wanted; after `limit` the error has them as they are.
    pub async fn wait_for(
        &self,
        mut wanted: impl FnMut(&Counts) -> bool,
        limit: Duration,
    ) -> Result<Counts, Counts> {
        let mut counts = self.watch_counts();
        match timeout(limit, counts.wait_for(|counts| wanted(counts))).await {
            Ok(Ok(counts)) => Ok(*counts),
            _ => Err(self.counts()),
        }
    }

    /// Pulls the cable: the pseudo-terminal hangs up, the link is gone, the modem has no power.
    pub async fn unplug(&self) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(Order::Unplug(done)).await.is_ok() {
            // An error means that the modem has stopped.
            drop(ended.await);
        }
    }

    /// Plugs it in again, perhaps under another name. It boots. Returns the new path.
    pub async fn plug(&self, cable: Cable) -> io::Result<PathBuf> {
        let stopped = || io::Error::other("the simulated modem has stopped");
        let (done, ended) = oneshot::channel();
        self.orders
            .send(Order::Plug(cable, done))
            .await
            .map_err(|_| stopped())?;
        let path = ended.await.map_err(|_| stopped())??;
        self.path
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&path);
        Ok(path)
    }

    /// Unplugs it and waits for the end.
    pub async fn stop(mut self) {
        let Some(task) = self.task.take() else { return };
        let handle = task.abort_handle();
        drop(self);
        if timeout(STOP_WITHIN, task).await.is_err() {
            log::warn!("the simulated modem did not stop in time");
            handle.abort();
        }
    }
}

/// Moves bytes until the handle is gone.
async fn run(shared: Arc<Shared>, line: Line, mut orders: mpsc::Receiver<Order>) {
    let mut line = Some(line);
    let mut unread: Vec<u8> = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let (said, due) = shared.with(|engine, _| (engine.output(), engine.deadline()));
        if unread.len() < UNREAD {
            unread.extend(said);
        }
        let wake = shared.started + due.unwrap_or_else(|| shared.started.elapsed() + LONG);
        tokio::select! {
            read = read(line.as_ref(), &mut buffer) => match read {
                Ok(count) => shared.with(|engine, now| {
                    engine.receive(buffer.get(..count).unwrap_or_default(), now);
                }),
                Err(error) => {
                    log::warn!(error:err = error; "Simulated modem: the cable is broken");
                    line = None;
                }
            },
            written = write(line.as_ref(), &unread) => match written {
                Ok(count) => unread = unread.split_off(count.min(unread.len())),
                Err(error) => {
                    log::warn!(error:err = error; "Simulated modem: the cable is broken");
                    line = None;
                }
            },
            () = shared.changed.notified() => {}
            () = sleep_until(wake) => {}
            order = orders.recv() => match order {
                None => return,
                Some(Order::Unplug(done)) => {
                    line = None;
                    unread.clear();
                    shared.with(|engine, _| engine.power_off());
                    // Whoever asked may be gone.
                    done.send(()).ok();
                }
                Some(Order::Plug(cable, done)) => {
                    line = None;
                    unread.clear();
                    let plugged = Line::plug(&cable).map(|new| {
                        let path = new.path().to_owned();
                        line = Some(new);
                        shared.with(|engine, _| {
                            engine.power_off();
                            engine.power_on();
                        });
                        path
                    });
                    drop(done.send(plugged));
                }
            },
        }
    }
}

async fn read(line: Option<&Line>, buffer: &mut [u8]) -> io::Result<usize> {
    match line {
        Some(line) => line.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn write(line: Option<&Line>, bytes: &[u8]) -> io::Result<usize> {
    match line {
        Some(line) if !bytes.is_empty() => line.write(bytes).await,
        _ => std::future::pending().await,
    }
}
