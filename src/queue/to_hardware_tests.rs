use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::{Address, DeliveryState, OutgoingState};
use crate::store::{NewOutgoing, Options};

struct Bed {
    _folder: tempfile::TempDir,
    store: Store,
    channel: ChannelId,
}

/// A running lane with this test as its driver.
struct Running {
    jobs: mpsc::Receiver<OutgoingJob>,
    link: watch::Sender<Link>,
    stop: watch::Sender<bool>,
    statuses: LaneStatuses,
    task: JoinHandle<Result<(), String>>,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            disk_reserve: 0,
            ..Options::new(folder.path())
        };
        Self {
            store: Store::open(options).unwrap(),
            _folder: folder,
            channel: "sms".parse().unwrap(),
        }
    }

    async fn answer(&self, to: &str, text: &str) -> MessageId {
        let now = Timestamp::from_unix_ms(1_793_491_200_000);
        let to = Address::new(to).unwrap();
        let conversation = self
            .store
            .find_or_start_conversation(self.channel.clone(), to, now);
        let order = NewOutgoing {
            channel: self.channel.clone(),
            conversation: conversation.await.unwrap(),
            text: text.to_owned(),
            attachments: Vec::new(),
            now,
            announce: false,
        };
        self.store.insert_outgoing(order).await.unwrap()
    }

    fn run(&self, resend_unknown: bool) -> Running {
        self.run_with(resend_unknown, 4)
    }

    fn run_with(&self, resend_unknown: bool, in_flight: usize) -> Running {
        let (outgoing, jobs) = mpsc::channel(16);
        let (link, link_state) = watch::channel(Link::Up(Timestamp::from_unix_ms(0)));
        let (stop, stopped) = watch::channel(false);
        let statuses = LaneStatuses::default();
        let lane = Lane {
            channel: self.channel.clone(),
            driver: DriverHandle {
                name: Arc::from("test"),
                outgoing,
                link: link_state,
                modem: None,
            },
            in_flight,
            resend_unknown,
        };
        let links = Links {
            public_url: None,
            secret: [0; 32],
            lifetime: Duration::from_secs(60),
        };
        let task = tokio::spawn(run(
            self.store.clone(),
            lane,
            links,
            statuses.clone(),
            stopped,
            || {},
        ));
        Running {
            jobs,
            link,
            stop,
            statuses,
            task,
        }
    }

    async fn state(&self, id: MessageId) -> OutgoingState {
        let found = self.store.read(move |reader| reader.message(id)).await.unwrap();
        match found.unwrap().1.state {
            DeliveryState::Outgoing(state) => state,
            DeliveryState::Incoming(_) => panic!("not outgoing"),
        }
    }
}

#[tokio::test]
async fn an_outcome_is_recorded_also_when_the_driver_has_heard_of_the_stop_first() {
    let bed = Bed::new();
    for number in 0..12 {
        let id = bed.answer("+491", &number.to_string()).await;
        let mut running = bed.run(false);
        let job = running.jobs.recv().await.unwrap();
        running.stop.send(true).unwrap();
        drop(running.link);
        job.outcome.send(Attempt::Sent).unwrap();
        assert_eq!(running.task.await.unwrap(), Ok(()), "stop {number}");
        assert_eq!(bed.state(id).await, OutgoingState::Sent);
    }
}

#[tokio::test]
async fn a_driver_that_ends_without_a_stop_is_an_error() {
    let bed = Bed::new();
    let running = bed.run(false);
    drop(running.link);
    assert!(running.task.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_gets_an_outcome_is_not_sent_for_ever() {
    let bed = Bed::new();
    let id = bed.answer("+491", "hello").await;
    let mut running = bed.run(true);
    for _ in 0..=RESENDS {
        let job = running.jobs.recv().await.unwrap();
        let silence = Attempt::Unknown("the broker did not answer".to_owned());
        job.outcome.send(silence).unwrap();
    }
    while running.statuses.get(&bed.channel).unknown <= u64::from(RESENDS) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(bed.state(id).await, OutgoingState::Unknown(_)));
    // The next one has its own count.
    bed.answer("+491", "again").await;
    let job = running.jobs.recv().await.unwrap();
    assert_eq!(job.message.text, "again");
    running.stop.send(true).unwrap();
    job.outcome.send(Attempt::Sent).unwrap();
    running.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_leave_lets_the_others_go_first() {
    let bed = Bed::new();
    bed.answer("+491", "stuck").await;
    bed.answer("+492", "second").await;
    bed.answer("+493", "third").await;
    let mut running = bed.run_with(false, 1);
    let mut order = Vec::new();
    for _ in 0..4 {
        let job = running.jobs.recv().await.unwrap();
        let outcome = match job.message.text.as_str() {
            "stuck" => Attempt::NotStarted("the network is busy".to_owned()),
            _ => Attempt::Sent,
        };
        order.push(job.message.text.clone());
        job.outcome.send(outcome).unwrap();
    }
    assert_eq!(order, ["stuck", "second", "third", "stuck"]);
    running.stop.send(true).unwrap();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_holds_its_conversation_only_and_is_shown() {
    let bed = Bed::new();
    let damaged = bed.answer("+491", "lost").await;
    bed.store.damage(damaged).await.unwrap();
    assert_eq!(bed.store.recover_attempts(&|_| false).await, Ok(0));
    bed.answer("+492", "goes").await;
    let mut running = bed.run(false);
    let job = running.jobs.recv().await.unwrap();
    assert_eq!(job.message.text, "goes");
    job.outcome.send(Attempt::Sent).unwrap();
    while running.statuses.get(&bed.channel).sent == 0 || running.statuses.get(&bed.channel).waiting.is_none()
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiting = running.statuses.get(&bed.channel).waiting.unwrap();
    assert!(waiting.contains("cannot be read"), "{waiting}");
    running.stop.send(true).unwrap();
    running.task.await.unwrap().unwrap();
}
