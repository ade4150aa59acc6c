//! One device: its connection and its timetable.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{AsyncClient, ConnectionError, EventLoop, LastWill, MqttOptions, Packet, QoS};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::formats::{self, Command, Publication};
use super::{Device, Event, Script, Text, What};

/// Pause between two attempts to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// How long a DISCONNECT may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Requests to the client library, and news from it, before the other side waits.
const CAPACITY: usize = 64;
/// Largest packet in bytes: rumqttc's default of 10 KiB for 3.1.1 would end in a loop of reconnects.
const MAX_PACKET: usize = 1 << 20;

/// News from the connection.
enum News {
    Subscribed,
    Lost(String),
    Command(Vec<u8>),
}

/// What is to be done at a certain time.
enum Action {
    Say {
        customer: usize,
        text: Text,
    },
    Confirm {
        command: Command,
        customer: Option<usize>,
    },
}

/// Runs until it is told to stop.
pub(super) async fn run(
    device: Device,
    broker_port: u16,
    script: Script,
    events: mpsc::Sender<Event>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut options = MqttOptions::new(format!("{device}-demo"), "127.0.0.1", broker_port);
    let will = formats::will(device);
    options
        .set_clean_session(false)
        .set_keep_alive(Duration::from_secs(30))
        .set_max_packet_size(MAX_PACKET, MAX_PACKET)
        .set_last_will(LastWill::new(
            will.topic,
            will.payload,
            QoS::AtLeastOnce,
            will.retain,
        ));
    let (client, connection) = AsyncClient::new(options, CAPACITY);
    let (to, mut news) = mpsc::channel(CAPACITY);
    // rumqttc can freeze when the task that polls also publishes, so polling is a task of its own.
    // In a set, because that ends with this task.
    let mut polling = JoinSet::new();
    polling.spawn(poll(device, connection, client.clone(), to));

    let mut worker = Worker {
        device,
        answers: script
            .customers
            .iter()
            .map(|customer| customer.answers.clone().into())
            .collect(),
        script,
        client,
        events,
        timetable: BTreeMap::new(),
        entries: 0,
        started: false,
        reference: 0,
    };
    loop {
        let next = worker.timetable.first_key_value().map(|((when, _), _)| *when);
        // Everything below is cancel-safe up to the point where it has something to do; `act` is not interrupted.
        tokio::select! {
            heard = news.recv() => match heard {
                Some(heard) => worker.hear(heard).await,
                None => break,
            },
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))) => {
                if next.is_some() && let Some((_, action)) = worker.timetable.pop_first() {
                    worker.act(action).await;
                }
            }
            () = told(&mut stopping) => break,
        }
    }
    // The polling task ends with the library's word that DISCONNECT was written, if there is a connection.
    drop(worker.client.try_disconnect());
    drop(news);
    // Without a connection there is no goodbye either.
    drop(timeout(GOODBYE_WITHIN, polling.join_next()).await);
}

async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that the owner has gone: stop as well.
    drop(stopping.wait_for(|stop| *stop).await);
}

async fn poll(device: Device, mut connection: EventLoop, client: AsyncClient, to: mpsc::Sender<News>) {
    loop {
        let news = match connection.poll().await {
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(_))) => {
                let hello = formats::hello(device);
                // The library's queue is empty after a connect, or the next connect says it again.
                drop(client.try_publish(hello.topic, QoS::AtLeastOnce, hello.retain, hello.payload));
                drop(client.try_subscribe(formats::command_topic(device), QoS::AtLeastOnce));
                continue;
            }
            Ok(rumqttc::Event::Incoming(Packet::SubAck(_))) => News::Subscribed,
            Ok(rumqttc::Event::Incoming(Packet::Publish(publish))) => News::Command(publish.payload.to_vec()),
            Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect))
            | Err(ConnectionError::RequestsDone) => return,
            Ok(_) => continue,
            Err(error) => {
                if to.send(News::Lost(error.to_string())).await.is_err() {
                    return;
                }
                sleep(RECONNECT_AFTER).await;
                continue;
            }
        };
        // While the device says goodbye nobody listens any more, and polling has to go on.
        drop(to.send(news).await);
    }
}

struct Worker {
    device: Device,
    script: Script,
    /// What is left to say for each customer.
    answers: Vec<VecDeque<String>>,
    client: AsyncClient,
    events: mpsc::Sender<Event>,
    /// The second part of the key keeps the order of entries for the same time.
    timetable: BTreeMap<(Instant, u64), Action>,
    entries: u64,
    started: bool,
    reference: u8,
}

impl Worker {
    fn plan(&mut self, after: Duration, action: Action) {
        self.entries += 1;
        self.timetable
            .insert((Instant::now() + after, self.entries), action);
    }

    async fn tell(&self, what: What) {
        // Without a reader there is nobody to tell.
        drop(
            self.events
                .send(Event {
                    device: self.device,
                    what,
                })
                .await,
        );
    }

    async fn publish(&self, publication: Publication) {
        let Publication {
            topic,
            payload,
            retain,
        } = publication;
        if let Err(error) = self
            .client
            .publish(topic, QoS::AtLeastOnce, retain, payload)
            .await
        {
            log::warn!(device:% = self.device, error:% = error; "Simulated device: cannot publish");
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Subscribed => {
                self.tell(What::Connected).await;
                if !std::mem::replace(&mut self.started, true) {
                    let texts: Vec<_> = self
                        .script
                        .customers
                        .iter()
                        .enumerate()
                        .flat_map(|(customer, them)| {
                            them.texts.iter().cloned().map(move |text| (customer, text))
                        })
                        .collect();
                    for (customer, text) in texts {
                        self.plan(text.after, Action::Say { customer, text });
                    }
                }
            }
            News::Lost(reason) => self.tell(What::Disconnected { reason }).await,
            News::Command(payload) => match formats::command(self.device, &payload) {
                Ok(command) => {
                    let customer = self
                        .script
                        .customers
                        .iter()
                        .position(|them| them.number == command.number);
                    let to = customer
                        .and_then(|index| self.script.customers.get(index))
                        .map_or_else(|| command.number.clone(), |them| them.name.clone());
                    let (number, text) = (command.number.clone(), command.text.clone());
                    self.tell(What::Sending { to, number, text }).await;
                    self.plan(self.script.confirm_after, Action::Confirm { command, customer });
                }
                Err((reason, answer)) => {
                    self.tell(What::Unreadable { reason }).await;
                    if let Some(answer) = answer {
                        self.publish(answer).await;
                    }
                }
            },
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Say { customer, text } => {
                let Some(them) = self.script.customers.get(customer) else {
                    return;
                };
                let (from, number) = (them.name.clone(), them.number.clone());
                self.publish(formats::received(self.device, &number, &text, Timestamp::now()))
                    .await;
                let files = text.files.into_iter().map(|file| file.name).collect();
                let text = text.text;
                self.tell(What::Received {
                    from,
                    number,
                    text,
                    files,
                })
                .await;
            }
            Action::Confirm { command, customer } => {
                self.reference = self.reference.wrapping_add(1);
                self.publish(formats::confirmed(
                    self.device,
                    &command,
                    self.reference,
                    Timestamp::now(),
                ))
                .await;
                let delivered = self.device.reports_delivery();
                self.tell(What::Confirmed {
                    number: command.number,
                    delivered,
                })
                .await;
                let answer =
                    customer.and_then(|index| Some((index, self.answers.get_mut(index)?.pop_front()?)));
                if let Some((customer, text)) = answer {
                    let text = Text::from(text);
                    self.plan(self.script.answer_after, Action::Say { customer, text });
                }
            }
        }
    }
}
