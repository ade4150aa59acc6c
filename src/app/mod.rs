//! Builds the gateway, supervises its tasks and drains them.

mod connect;
mod events;
mod maintenance;
mod pipedrive;
mod tasks;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use connect::Connector;
pub use tasks::{Pulse, Pulses, Shutdown, Tasks};

use crate::config::{self, Config, OnUnknown};
use crate::control::server::{BindError, ControlSocket};
use crate::control::{Gateway, LinkStatus, ListenerStatus, Live};
use crate::domain::{ChannelId, Timestamp};
use crate::driver::{DriverEvent, DriverHandle, mqtt, sms};
use crate::manifest::{Handle, ListenError, Listener};
use crate::queue::to_hardware::{self, Lane, LaneStatuses, Links};
use crate::store::{self, OpenError, Store, StoreError};
use crate::systemd;

/// Events that wait for the store, over all drivers. A full channel makes the drivers wait.
const EVENTS: usize = 256;
/// Outgoing messages that a broker is given at a time.
const MQTT_IN_FLIGHT: usize = 16;
/// And a modem.
const MODEM_IN_FLIGHT: usize = 1;
/// How long a start waits for whoever has the store, and how often it looks: a command like `pipepost status` has it for
/// a moment while no gateway runs.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
const STORE_LOOK: Duration = Duration::from_millis(20);

/// Why the gateway could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener cannot start.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The control socket cannot be used.
    #[error(transparent)]
    Control(#[from] BindError),
    /// Something in the configuration only shows when it is used.
    #[error("{0}")]
    Config(String),
    /// A task ended although nobody asked it to.
    #[error("task \"{0}\" ended: {1}")]
    Task(String, String),
}

/// What is known once the gateway runs.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where the manifest listener is.
    pub address: std::net::SocketAddr,
    /// The certificate that a caller must trust when it was made here.
    pub certificate_file: PathBuf,
}

/// How the store is opened, from the configuration.
#[must_use]
pub fn store_options(config: &Config) -> store::Options {
    store::Options {
        state_dir: config.gateway.state_dir.clone(),
        gateway_id: config.gateway.id.clone(),
        disk_reserve: config.store.disk_reserve,
        retain_for: config.store.retain_for,
        retain_bytes: config.store.retain_bytes,
        home: config.gateway.home,
        ..store::Options::new(&config.gateway.state_dir)
    }
}

/// Signals from outside to a running gateway.
pub struct Signals {
    /// Turns true when the gateway shall stop.
    pub stop: watch::Receiver<bool>,
    /// Moves on when certificates shall be read again.
    pub reload: watch::Receiver<u64>,
}

/// Runs the gateway until `signals.stop`. Starts degraded, not dead, while a broker or Pipedrive is away.
///
/// `ready` is called once, when the listener answers and every task runs.
pub async fn run(config: Config, signals: Signals, ready: impl FnOnce(Ready)) -> Result<(), AppError> {
    let started = Instant::now();
    let config = Arc::new(config);
    let store = open_store(&config).await?;
    info!(gateway = store.gateway_id().as_str(), messages = store.counts().messages; "Store open");
    let outcome = run_with_store(&config, &store, signals, started, ready).await;
    store.close().await;
    outcome
}

async fn open_store(config: &Config) -> Result<Store, OpenError> {
    let began = Instant::now();
    let mut said = false;
    loop {
        // Nothing else runs yet that this could hold up, and on another thread the C library would keep a second heap for it.
        match Store::open(store_options(config)) {
            Err(error @ OpenError::InUse { .. }) if began.elapsed() < STORE_PATIENCE => {
                if !said {
                    info!("Waiting for at most {} s: {error}", STORE_PATIENCE.as_secs());
                }
                said = true;
                tokio::time::sleep(STORE_LOOK).await;
            }
            opened => return opened,
        }
    }
}

async fn run_with_store(
    config: &Arc<Config>,
    store: &Store,
    mut signals: Signals,
    started: Instant,
    ready: impl FnOnce(Ready),
) -> Result<(), AppError> {
    // First of all: a second daemon must not get further than this.
    let control = ControlSocket::bind(&config.gateway.control_socket).await?;
    let prepared = pipedrive::prepare(config, store)?;
    let connector = Connector::new(
        config,
        store,
        prepared.accounts.clone(),
        Arc::clone(&prepared.uplink),
    );
    let callback = Arc::new(connector.clone());
    let listener = Listener::bind_with(config, store.clone(), Some(callback)).await?;
    let listener_handle = listener.handle();
    let clock = wait_for_clock(config, &mut signals.stop).await;

    let resend: Vec<ChannelId> = config
        .channels
        .iter()
        .filter(|channel| channel.on_unknown == OnUnknown::Resend)
        .map(|channel| channel.id.clone())
        .collect();
    let recovered = store
        .recover_attempts(&|channel: &ChannelId| resend.contains(channel))
        .await?;
    if recovered > 0 {
        warn!(messages = recovered; "The last run ended while messages were being sent");
    }

    let mut tasks = Tasks::default();
    let (events, received) = mpsc::channel::<DriverEvent>(EVENTS);
    spawn_events(&mut tasks, store, received);
    let drivers = spawn_drivers(&mut tasks, config, store, &events).await?;
    drop(events);
    let links = Links {
        public_url: config.pipedrive.public_url.clone(),
        secret: store.media_secret(),
        lifetime: config.listener.link_lifetime,
    };
    let lanes = spawn_lanes(&mut tasks, config, store, &drivers, &links);
    let uplink = pipedrive::spawn(&mut tasks, config, store, links, prepared, &connector)?;
    maintenance::spawn(&mut tasks, store);

    let stop = tasks.shutdown().subscribe();
    tasks.spawn("listener", async move {
        listener.serve(stop).await;
        Ok(())
    });
    let live = Live {
        started,
        clock: Box::new(move || clock.clone()),
        listener: Box::new({
            let handle = listener_handle.clone();
            move || listener_status(&handle)
        }),
        uplink: uplink.summary,
        links: drivers.iter().map(|driver| driver.handle.clone()).collect(),
        lanes,
        calls: uplink.calls,
        connecting: Arc::new(connector),
    };
    let gateway = Arc::new(Gateway {
        config: Arc::clone(config),
        store: store.clone(),
        live: Some(live),
    });
    spawn_control(&mut tasks, control, Arc::clone(&gateway));
    spawn_status(&mut tasks, Arc::clone(&gateway));
    let (pulses, watched) = (tasks.pulses(), store.clone());
    let shutdown = tasks.shutdown();
    tasks.spawn("watchdog", watchdog::run(pulses, watched, shutdown));

    let address = listener_handle.address();
    let certificate_file = listener_handle.certificate_file();
    info!(address = address.to_string().as_str(); "Gateway ready");
    systemd::notify_ready();
    ready(Ready {
        address,
        certificate_file,
    });

    let outcome = supervise(&mut tasks, config, store, &listener_handle, &mut signals).await;
    systemd::notify_stopping();
    info!("Stopping: waiting for work in progress");
    let late = tasks.drain(config.gateway.drain_timeout).await;
    if late.is_empty() {
        info!("Stopped");
    }
    outcome
}

/// Waits for the stop, a task that breaks off, or a store that has failed; reloads certificates meanwhile.
async fn supervise(
    tasks: &mut Tasks,
    config: &Config,
    store: &Store,
    listener: &Handle,
    signals: &mut Signals,
) -> Result<(), AppError> {
    let mut failed = store.failed();
    loop {
        tokio::select! {
            _ = signals.stop.wait_for(|stop| *stop) => return Ok(()),
            (task, outcome) = tasks.first_end() => {
                let reason = outcome.err().unwrap_or_else(|| "nobody asked it to".to_owned());
                error!(task = task.as_str(), reason = reason.as_str(); "A task ended");
                return Err(AppError::Task(task, reason));
            }
            Ok(reason) = failed.wait_for(Option::is_some) => {
                let reason = reason.clone().unwrap_or_default();
                error!(reason = reason.as_str(); "The store has stopped: check the disk");
                return Err(AppError::Store(StoreError::Failed(reason)));
            }
            Ok(()) = signals.reload.changed() => {
                systemd::notify_reloading();
                reload_templates(config, listener);
                match listener.reload() {
                    Ok(()) => info!("Certificates read again"),
                    Err(error) => {
                        error!(reason = error.to_string().as_str(); "The old certificate stays in use");
                    }
                }
                systemd::notify_ready();
            }
        }
    }
}

/// Templates that are not usable are left out.
fn reload_templates(config: &Config, listener: &Handle) {
    let channels: Vec<ChannelId> = config.channels.iter().map(|channel| channel.id.clone()).collect();
    let (templates, findings) = config::templates(&config.gateway.templates_dir, &channels);
    for finding in findings {
        warn!(finding = finding.to_string().as_str(); "A template is left out");
    }
    info!(templates = templates.len(); "Templates read again");
    listener.set_templates(templates);
}

async fn wait_for_clock(config: &Config, stop: &mut watch::Receiver<bool>) -> String {
    systemd::notify_status("waiting for a synchronised clock");
    tokio::select! {
        clock = systemd::wait_for_clock(config.gateway.clock_wait, None) => clock.to_string(),
        _ = stop.wait_for(|stop| *stop) => "not waited for".to_owned(),
    }
}

fn spawn_events(tasks: &mut Tasks, store: &Store, received: mpsc::Receiver<DriverEvent>) {
    let pulse = tasks.pulse("events");
    let stop = tasks.shutdown().subscribe();
    tasks.spawn(
        "events",
        events::run(store.clone(), received, stop, move || pulse.beat()),
    );
}

/// A running driver and the channels that it carries.
struct Driver {
    handle: DriverHandle,
    hardware: Hardware,
}

/// A driver's hardware, by its name in the configuration.
#[derive(PartialEq, Eq)]
enum Hardware {
    Broker(String),
    Modem(String),
}

async fn spawn_drivers(
    tasks: &mut Tasks,
    config: &Arc<Config>,
    store: &Store,
    events: &mpsc::Sender<DriverEvent>,
) -> Result<Vec<Driver>, AppError> {
    let mut drivers = Vec::new();
    for broker in &config.brokers {
        let client_id = match &broker.client_id {
            Some(id) => id.clone(),
            None => {
                store
                    .persistent_name(&format!("mqtt-client-id-{}", broker.name))
                    .await?
            }
        };
        let wrong = |error| AppError::Config(format!("broker \"{}\": {error}", broker.name));
        let setup = mqtt::Setup {
            broker: broker.clone(),
            devices: mqtt::devices(&broker.name, &config.devices, &config.channels).map_err(wrong)?,
            client_id,
            gateway: store.gateway_id().clone(),
            subscriptions_file: Some(
                config
                    .gateway
                    .state_dir
                    .join(format!("subscriptions-{}", broker.name)),
            ),
            events: events.clone(),
            stop: tasks.shutdown().subscribe(),
        };
        let name = format!("broker {}", broker.name);
        let (handle, driver) = mqtt::spawn(setup);
        tasks.spawn(&name, async move {
            driver.await;
            Ok(())
        });
        drivers.push(Driver {
            handle,
            hardware: Hardware::Broker(broker.name.clone()),
        });
    }
    drivers.extend(spawn_modems(tasks, config, store, events));
    Ok(drivers)
}

fn spawn_modems(
    tasks: &mut Tasks,
    config: &Config,
    store: &Store,
    events: &mpsc::Sender<DriverEvent>,
) -> Vec<Driver> {
    let mut drivers = Vec::new();
    for modem in &config.modems {
        let channel = config
            .channels
            .iter()
            .find(|channel| channel.modem.as_ref() == Some(&modem.name));
        // The check of the configuration has warned of a modem without a channel.
        let Some(channel) = channel else { continue };
        let (handle, driver) = sms::spawn(sms::Setup {
            modem: modem.clone(),
            channel: channel.id.clone(),
            store: store.clone(),
            events: events.clone(),
            stop: tasks.shutdown().subscribe(),
        });
        tasks.spawn(&format!("modem {}", modem.name), async move {
            driver.await;
            Ok(())
        });
        drivers.push(Driver {
            handle,
            hardware: Hardware::Modem(modem.name.clone()),
        });
    }
    drivers
}

fn spawn_lanes(
    tasks: &mut Tasks,
    config: &Config,
    store: &Store,
    drivers: &[Driver],
    links: &Links,
) -> LaneStatuses {
    let statuses = LaneStatuses::default();
    for channel in &config.channels {
        let device = config
            .devices
            .iter()
            .find(|device| Some(&device.name) == channel.device.as_ref());
        let hardware = match (&channel.modem, device) {
            (Some(modem), _) => Some(Hardware::Modem(modem.clone())),
            (None, device) => device.map(|device| Hardware::Broker(device.broker.clone())),
        };
        let driver = drivers
            .iter()
            .find(|driver| hardware.as_ref() == Some(&driver.hardware));
        // The check of the configuration has refused a channel without hardware.
        let Some(driver) = driver else { continue };
        let lane = Lane {
            channel: channel.id.clone(),
            driver: driver.handle.clone(),
            in_flight: match driver.hardware {
                Hardware::Broker(_) => MQTT_IN_FLIGHT,
                Hardware::Modem(_) => MODEM_IN_FLIGHT,
            },
            resend_unknown: channel.on_unknown == OnUnknown::Resend,
        };
        let name = format!("answers {}", channel.id);
        let pulse = tasks.pulse(&name);
        let stop = tasks.shutdown().subscribe();
        let lane = to_hardware::run(
            store.clone(),
            lane,
            links.clone(),
            statuses.clone(),
            stop,
            move || pulse.beat(),
        );
        tasks.spawn(&name, lane);
    }
    statuses
}

fn spawn_control(tasks: &mut Tasks, control: ControlSocket, gateway: Arc<Gateway>) {
    let mut shutdown = tasks.shutdown();
    let pulse = tasks.pulse("control");
    tasks.spawn("control", async move {
        control.serve(gateway, shutdown.wait(), || pulse.beat()).await;
        Ok(())
    });
}

/// Tells systemd in one line how things are, when that changes.
fn spawn_status(tasks: &mut Tasks, gateway: Arc<Gateway>) {
    let mut shutdown = tasks.shutdown();
    tasks.spawn("status", async move {
        let mut said = String::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        loop {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let Ok(status) = gateway.status().await else {
                continue;
            };
            let named = |wanted: fn(&LinkStatus) -> bool| {
                let names = status.links.iter().filter(|link| wanted(link));
                names
                    .map(|link| link.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let (down, faulty) = (named(|link| !link.up), named(|link| link.faulty || link.paused));
            let words = status.uplink.map(|uplink| uplink.words).unwrap_or_default();
            let mut line = words.trim_end_matches('.').to_owned();
            if !down.is_empty() {
                line = format!("{line}; not connected: {down}");
            }
            if !faulty.is_empty() {
                line = format!("{line}; not all works: {faulty} (see `pipepost status`)");
            }
            if let Some(folder) = status.store.damaged {
                line = format!("ALARM: the database was damaged, see {folder}; {line}");
            }
            if let Some(alarm) = status.store.alarm {
                line = format!("ALARM: {alarm}; {line}");
            }
            if line != said {
                systemd::notify_status(&line);
                said = line;
            }
        }
    });
}

fn listener_status(handle: &Handle) -> ListenerStatus {
    let counts = handle.metrics();
    ListenerStatus {
        address: handle.address().to_string(),
        certificate: if handle.is_self_signed() {
            format!("self-signed: {}", handle.certificate_file().display())
        } else {
            handle.certificate_file().display().to_string()
        },
        credentials: handle.has_credentials(),
        requests: counts.requests.iter().map(|(_, _, count)| count).sum(),
        unauthorized: counts.auth_failures,
        last_call: counts.last_from_pipedrive.map(Timestamp::to_iso8601),
    }
}
