//! Drivers → store: what comes up from the hardware is stored in the order it came, many at one sync.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use log::{debug, info, warn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::{ReceivedMessage, StatusReport, Unmapped};
use crate::driver::{DriverEvent, Stored};
use crate::store::{self, Inserted, MAX_TEXT, StatusApplied, Store, StoreError};

/// Events that share one round; as many as a broker keeps in flight towards the gateway.
const ROUND: usize = 64;
/// How long a round waits for as many as the last one had: this part of what that took.
const PATIENCE: u32 = 4;
const MOST_PATIENCE: Duration = Duration::from_millis(3);

/// Stores events until `stop` turns true. `beat` is called at least every few seconds while it is not stuck.
///
/// # Errors
/// In words when the store has stopped: then the daemon must stop too.
pub(super) async fn run(
    store: Store,
    mut events: mpsc::Receiver<DriverEvent>,
    mut stop: watch::Receiver<bool>,
    beat: impl Fn(),
) -> Result<(), String> {
    let mut round = Vec::with_capacity(ROUND);
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    let mut last = (0, Duration::ZERO);
    // Without a broker in the configuration there is never a driver, which is no reason to stop.
    let mut drivers = true;
    loop {
        tokio::select! {
            biased;
            count = events.recv_many(&mut round, ROUND), if drivers => drivers = count > 0,
            stopped = stop.wait_for(|stop| *stop) => {
                if let Err(error) = stopped {
                    debug!("The owner of the tasks is gone: {error}");
                }
                return Ok(());
            }
            _ = ticks.tick() => { beat(); continue }
        }
        gather(&mut events, &mut round, last).await;
        let (count, begun) = (round.len(), Instant::now());
        while !round.is_empty() {
            // `join_all` polls in order, and the first poll hands each write to the store: the order is kept. A
            // message that needs files first reaches the store later, so what comes behind it waits for it.
            let end = round
                .iter()
                .position(needs_files)
                .map_or(round.len(), |index| index + 1);
            let outcomes = join_all(round.drain(..end).map(|event| store_event(&store, event))).await;
            if let Some(fatal) = outcomes.into_iter().flatten().next() {
                return Err(fatal);
            }
            // While there is always something to store the ticks never get their turn.
            beat();
        }
        last = (count, begun.elapsed());
    }
}

/// Waits for as many as the last round had. Behind a backlog each event that is stored makes room for one at the broker:
/// these come one by one, and without patience the first of them would have a sync alone. Whoever sends one after the
/// other is not waited for.
async fn gather(
    events: &mut mpsc::Receiver<DriverEvent>,
    round: &mut Vec<DriverEvent>,
    last: (usize, Duration),
) {
    let (wanted, took) = last;
    if round.is_empty() || round.len() >= wanted {
        return;
    }
    let patience = (took / PATIENCE).min(MOST_PATIENCE);
    let more =
        async { while round.len() < wanted && events.recv_many(round, wanted - round.len()).await > 0 {} };
    // When it is over the round is as large as it is.
    drop(tokio::time::timeout(patience, more).await);
}

fn needs_files(event: &DriverEvent) -> bool {
    matches!(event, DriverEvent::Received { message, .. } if store::needs_files(message))
}

/// Stores one event and tells its driver. Returns a reason to stop the daemon.
async fn store_event(store: &Store, event: DriverEvent) -> Option<String> {
    match event {
        DriverEvent::Received { message, stored } => answer(stored, received(store, *message).await),
        DriverEvent::Unmapped { record, stored } => answer(stored, unmapped(store, *record).await),
        DriverEvent::Status { report, stored } => answer(stored, status(store, *report).await),
    }
}

fn answer(stored: oneshot::Sender<Stored>, outcome: Result<(), StoreError>) -> Option<String> {
    let (verdict, fatal) = match outcome {
        Ok(()) => (Stored::Acknowledge, None),
        Err(error) => {
            let fatal = error.requires_stop().then(|| error.to_string());
            let verdict = if error.refuses_hardware() {
                Stored::Refused
            } else {
                Stored::Acknowledge
            };
            warn!(reason = error.to_string().as_str(), kept_by_hardware = (verdict == Stored::Refused); "Not stored");
            (verdict, fatal)
        }
    };
    if stored.send(verdict).is_err() {
        debug!("The driver no longer waits for the store");
    }
    fatal
}

/// Shortens a text to what the store takes, and says so at its end.
fn cut(text: &mut String) {
    let line = format!(
        "\n[the text was cut: it has {} bytes, and {MAX_TEXT} are the limit]",
        text.len()
    );
    let end = (0..=MAX_TEXT.saturating_sub(line.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text.truncate(end);
    text.push_str(&line);
}

async fn received(store: &Store, mut message: ReceivedMessage) -> Result<(), StoreError> {
    let channel = message.channel.clone();
    if message.text.len() > MAX_TEXT && !message.attachments.is_empty() {
        // A record of what could not be read has no place for its files.
        cut(&mut message.text);
    }
    if message.text.len() > MAX_TEXT {
        // It will never fit: a visible record with its beginning, instead of refusing the hardware for ever.
        let mut payload = message.text.into_bytes();
        let reason = format!(
            "the text has {} bytes and {MAX_TEXT} are the limit",
            payload.len()
        );
        payload.truncate(Unmapped::MAX_PAYLOAD);
        let source = message.from.as_str().to_owned();
        let received_at = message.received_at;
        return unmapped(
            store,
            Unmapped {
                device: channel.to_string(),
                source,
                payload,
                reason,
                received_at,
            },
        )
        .await;
    }
    match store.insert_incoming(message).await? {
        Inserted::New(id) => {
            info!(message_id = id.to_string().as_str(), channel = channel.as_str(); "Stored incoming message");
        }
        Inserted::Duplicate(id) => {
            debug!(message_id = id.to_string().as_str(), channel = channel.as_str(); "Recognised a repeat");
        }
    }
    Ok(())
}

async fn unmapped(store: &Store, record: Unmapped) -> Result<(), StoreError> {
    warn!(device = record.device.as_str(), reason = record.reason.as_str(); "Could not read what a device sent");
    store.insert_unmapped(record).await
}

async fn status(store: &Store, report: StatusReport) -> Result<(), StoreError> {
    let channel = report.channel.clone();
    match store.apply_status(report).await? {
        StatusApplied::Applied(id) => {
            info!(message_id = id.to_string().as_str(), channel = channel.as_str(); "A device reported on a message");
        }
        StatusApplied::Unchanged(id) => {
            debug!(message_id = id.to_string().as_str(), channel = channel.as_str(); "A device repeated itself");
        }
        StatusApplied::NoMatch => {
            info!(channel = channel.as_str(); "A device reported on a message that nobody knows");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::domain::{Address, DedupKey, ReceivedAttachment, Route, Timestamp};
    use crate::store::Options;

    fn open(folder: &std::path::Path) -> Store {
        let options = Options {
            disk_reserve: 0,
            ..Options::new(folder)
        };
        Store::open(options).unwrap()
    }

    fn event(text: &str) -> (DriverEvent, oneshot::Receiver<Stored>) {
        let (stored, answer) = oneshot::channel();
        let message = ReceivedMessage {
            channel: "sms".parse().unwrap(),
            from: Address::new("+491").unwrap(),
            from_name: None,
            group: None,
            text: text.to_owned(),
            device_time: None,
            received_at: Timestamp::from_unix_ms(1_793_491_200_000),
            dedup: None,
            route: Route::new(),
            attachments: Vec::new(),
        };
        let message = Box::new(message);
        (DriverEvent::Received { message, stored }, answer)
    }

    #[tokio::test]
    async fn a_long_text_keeps_its_place_among_the_short_ones() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (events, received) = mpsc::channel(16);
        let texts = ["first".to_owned(), "long ".repeat(2000), "last".to_owned()];
        let mut answers = Vec::new();
        for text in &texts {
            let (event, answer) = event(text);
            events.send(event).await.unwrap();
            answers.push(answer);
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(store.clone(), received, stopped, || {}));
        for answer in answers {
            assert_eq!(answer.await, Ok(Stored::Acknowledge));
        }
        stop.send(true).unwrap();
        task.await.unwrap().unwrap();
        let head = store.heads(
            crate::store::Queue::ToUplink,
            None,
            &std::collections::HashSet::new(),
            1,
        );
        let conversation = head[0].conversation;
        let view = store
            .reader()
            .conversation(conversation, 10, None)
            .unwrap()
            .unwrap();
        let stored: Vec<String> = view
            .messages
            .into_iter()
            .rev()
            .map(|message| message.text)
            .collect();
        assert_eq!(stored, texts);
    }

    #[tokio::test]
    async fn a_repeat_of_a_message_with_a_file_leaves_one_message_and_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (events, received) = mpsc::channel(16);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (mut event, answer) = event("look");
            if let DriverEvent::Received { message, .. } = &mut event {
                message.dedup = Some(DedupKey::DeviceId("7".to_owned()));
                message.attachments = vec![ReceivedAttachment {
                    name: "a.png".to_owned(),
                    mime: "image/png".to_owned(),
                    bytes: vec![1; 100],
                }];
            }
            events.send(event).await.unwrap();
            answers.push(answer);
        }
        drop(events);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(store.clone(), received, stopped, || {}));
        for answer in answers {
            assert_eq!(answer.await, Ok(Stored::Acknowledge));
            // Whatever was acknowledged is a whole file under its own name.
            let files: Vec<_> = std::fs::read_dir(folder.path().join("attachments"))
                .unwrap()
                .map(|file| file.unwrap())
                .collect();
            assert_eq!(files.len(), 1, "{files:?}");
            assert_eq!(files[0].metadata().unwrap().len(), 100);
        }
        assert_eq!(store.counts().messages, 1);
        stop.send(true).unwrap();
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_waits_a_moment_for_as_many_as_the_last_one_had_and_never_for_more_than_one_sender() {
        let (events, mut received) = mpsc::channel(16);
        let mut round = vec![event("first").0];
        let later = events.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                later.send(event("later").0).await.unwrap();
            }
        });
        let begun = tokio::time::Instant::now();
        gather(&mut received, &mut round, (1, Duration::from_secs(1))).await;
        assert_eq!(round.len(), 1);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        gather(&mut received, &mut round, (3, Duration::from_secs(1))).await;
        assert_eq!(round.len(), 3);
        gather(&mut received, &mut round, (64, Duration::from_secs(1))).await;
        assert_eq!(round.len(), 4, "what has not come by then is not waited for");
        assert!(
            begun.elapsed() < Duration::from_millis(10),
            "{:?}",
            begun.elapsed()
        );
        drop(events);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_letters_and_says_so() {
        let mut text = "ü".repeat(MAX_TEXT);
        cut(&mut text);
        assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 3);
        assert!(text.ends_with("ü\n[the text was cut: it has 131072 bytes, and 65536 are the limit]"));
    }

    #[tokio::test]
    async fn it_beats_also_while_there_is_always_something_to_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (events, received) = mpsc::channel(EVENTS);
        let mut answers = Vec::new();
        for _ in 0..EVENTS {
            let (event, answer) = event("ok");
            events.send(event).await.unwrap();
            answers.push(answer);
        }
        let (_stop, stopped) = watch::channel(false);
        let beats = std::sync::Arc::new(AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&beats);
        let beat = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let task = tokio::spawn(run(store, received, stopped, beat));
        for answer in answers {
            assert_eq!(answer.await, Ok(Stored::Acknowledge));
        }
        let seen = beats.load(Ordering::SeqCst);
        assert!(seen >= EVENTS / ROUND - 1, "{seen} beats");
        task.abort();
    }

    const EVENTS: usize = ROUND * 4;

    #[tokio::test]
    async fn without_any_driver_it_waits_for_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (events, received) = mpsc::channel(1);
        drop(events);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(open(folder.path()), received, stopped, || {}));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        stop.send(true).unwrap();
        task.await.unwrap().unwrap();
    }
}
