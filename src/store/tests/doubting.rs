//! A damaged database in which an answer is found waiting that has left: it does not leave a second time. One that
//! cannot have left still does.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::rescuing::{copied, database, end, options_of, run};
use super::*;
use crate::domain::{DeliveryState, OutgoingState};

/// Where the last message in the log ends, give or take zeros at its end.
const ZEROS: u64 = 24;

/// A store with so many conversations that their records lie in many pages, and an answer in one of them.
async fn with_answer() -> (Bed, MessageId) {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(bed.incoming(&format!("+49{number}"), &"text ".repeat(20)).await);
    }
    bed.drain_uplink().await;
    let answer = bed.answer(ids[150].conversation, "answer").await;
    (bed, answer)
}

impl Bed {
    async fn answer(&self, conversation: ConversationId, text: &str) -> MessageId {
        let answer = outgoing(conversation, text);
        self.store.insert_outgoing(answer).await.unwrap()
    }

    async fn send(&self, answer: MessageId) {
        assert!(self.store.start_attempt(answer, at(1)).await.unwrap().is_some());
        self.store
            .finish_attempt(answer, Attempt::Sent, false)
            .await
            .unwrap();
    }

    /// The log's end is as long as it is synced.
    fn log_end(&self) -> u64 {
        end(&database(self.dir.path()))
    }
}

fn overwrite(database: &Path, from: u64, to: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(database).unwrap();
    let bytes = vec![0xa5; usize::try_from(to - from).unwrap()];
    file.write_all_at(&bytes, from).unwrap();
}

fn state(store: &Store, id: MessageId) -> OutgoingState {
    match store.reader().message(id).unwrap().unwrap().1.state {
        DeliveryState::Outgoing(state) => state,
        other @ DeliveryState::Incoming(_) => panic!("{other:?}"),
    }
}

fn report(store: &Store) -> String {
    std::fs::read_to_string(store.damaged_copy().unwrap().join("report.txt")).unwrap()
}

/// Rescues it, and goes on as the daemon does.
async fn rescued(folder: &Path, resend: bool) -> Store {
    rescue::write_notes(folder, 2, "a trial").unwrap();
    let store = Store::open(options_of(folder)).unwrap();
    store.recover_attempts(&|_| resend).await.unwrap();
    store
}

fn waits(store: &Store, id: MessageId) -> bool {
    let heads = store.heads(Queue::ToHardware, None, &HashSet::new(), 1000);
    heads.iter().any(|head| head.message() == id)
}

/// A copy in which an answer has left and what says so is lost, and the log goes on behind that.
async fn forgotten(bed: &Bed, answer: MessageId, dir: &TempDir) -> std::path::PathBuf {
    let before = bed.log_end();
    bed.send(answer).await;
    let after = bed.log_end();
    bed.store.persistent_name("behind").await.unwrap();
    let folder = copied(bed, dir);
    overwrite(&database(&folder), before + ZEROS, after);
    folder
}

#[tokio::test]
async fn an_answer_is_held_back_when_the_record_that_it_has_left_is_among_what_is_lost() {
    let (bed, answer) = with_answer().await;
    let dir = TempDir::new().unwrap();
    let folder = forgotten(&bed, answer, &dir).await;
    let store = rescued(&folder, false).await;
    let OutgoingState::Unknown(reason) = state(&store, answer) else {
        panic!("{:?}", state(&store, answer));
    };
    assert!(reason.contains("damaged"), "{reason}");
    assert!(!waits(&store, answer));
    let copy = store.damaged_copy().unwrap();
    assert_eq!(Store::held_with(&copy), 1);
    let report = report(&store);
    assert!(report.contains("Held back: 1 answer"), "{report}");
    assert!(report.contains(&answer.conversation.to_string()), "{report}");
}

#[tokio::test]
async fn where_the_channel_says_so_an_answer_that_may_have_left_is_sent_again() {
    let (bed, answer) = with_answer().await;
    let dir = TempDir::new().unwrap();
    let folder = forgotten(&bed, answer, &dir).await;
    let store = rescued(&folder, true).await;
    assert_eq!(state(&store, answer), OutgoingState::Queued);
    assert!(waits(&store, answer));
}

#[tokio::test]
async fn an_answer_from_behind_the_damage_cannot_have_left_and_is_sent() {
    let (bed, answer) = with_answer().await;
    let before = bed.log_end();
    bed.send(answer).await;
    let after = bed.log_end();
    let late = bed
        .answer(bed.incoming("+999", "late").await.conversation, "later")
        .await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    overwrite(&database(&folder), before + ZEROS, after);
    let store = rescued(&folder, false).await;
    assert_eq!(state(&store, late), OutgoingState::Queued);
    assert!(waits(&store, late));
    assert_ne!(state(&store, answer), OutgoingState::Queued);
}

#[tokio::test]
async fn when_the_end_of_the_log_is_missing_or_unknown_every_waiting_answer_is_held_back() {
    let (bed, answer) = with_answer().await;
    let before = bed.log_end();
    bed.store.persistent_name("behind").await.unwrap();
    for cut in [true, false] {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        let file = database(&folder);
        if cut {
            let file = std::fs::OpenOptions::new().write(true).open(file);
            file.unwrap().set_len(before + ZEROS).unwrap();
        } else {
            std::fs::remove_file(file.with_file_name("watermark")).unwrap();
        }
        let store = rescued(&folder, false).await;
        assert!(
            matches!(state(&store, answer), OutgoingState::Unknown(_)),
            "{cut}"
        );
        assert_eq!(Store::held_with(&store.damaged_copy().unwrap()), 1, "{cut}");
    }
}

#[tokio::test]
async fn of_a_sound_database_no_answer_is_held_back_however_often_it_was_opened_and_cut_off() {
    let (mut bed, answer) = with_answer().await;
    for round in 0..10_usize {
        for number in 0..80 {
            let text = "text ".repeat((number * 7 + round) % 90);
            bed.incoming(&format!("+49{number}"), &text).await;
        }
        bed.drain_uplink().await;
        bed.store.maintain(at(super::keeping::DAY)).await.unwrap();
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        let store = rescued(&folder, false).await;
        let report = report(&store);
        assert!(
            report.contains("of at most 0 messages"),
            "round {round}: {report}"
        );
        assert_eq!(state(&store, answer), OutgoingState::Queued, "round {round}");
        assert!(waits(&store, answer));
        if round % 3 == 0 {
            bed = bed.restart().await;
        } else if round % 3 == 1 {
            // As a power cut leaves it.
            let dir = TempDir::new().unwrap();
            super::archiving::copy(bed.dir.path(), dir.path());
            bed = Bed {
                store: Store::open(options(&dir)).unwrap(),
                dir,
            };
        }
    }
}

#[tokio::test]
async fn whatever_is_damaged_no_answer_that_has_left_waits_and_most_that_have_not_do() {
    let bed = Bed::new();
    let mut left = HashSet::new();
    let mut answers = Vec::new();
    for number in 0..240_usize {
        let id = bed
            .incoming(&format!("+49{}", number % 60), &"text ".repeat(number % 30))
            .await;
        let answer = bed.answer(id.conversation, &format!("answer {number}")).await;
        answers.push(answer);
        // Some leave at once, some late, some never.
        let due = match number % 3 {
            0 => Some(answer),
            1 => answers.get(number.wrapping_sub(60)).copied(),
            _ => None,
        };
        if let Some(due) = due.filter(|due| !left.contains(due)) {
            bed.send(due).await;
            left.insert(due);
        }
        if number % 40 == 0 {
            bed.drain_uplink().await;
            bed.store.maintain(at(super::keeping::DAY)).await.unwrap();
        }
    }
    let (mut again, mut held, mut waiting, mut rescues) = (0, 0, 0, 0);
    for trial in 0..60_u64 {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        let file = database(&folder);
        let at = trial.wrapping_mul(0x9e37_79b9_7f4a_7c15) % end(&file);
        let length = if trial % 2 == 0 { 1 } else { 6000 };
        overwrite(&file, at, at + length);
        rescue::write_notes(&folder, 2, "a trial").unwrap();
        let (store, found) = run(&folder).unwrap();
        rescues += 1;
        store.recover_attempts(&|_| false).await.unwrap();
        for answer in answers.iter().filter(|answer| found.contains(answer)) {
            let queued = state(&store, *answer) == OutgoingState::Queued;
            again += usize::from(queued && left.contains(answer));
            waiting += usize::from(queued && !left.contains(answer));
            held += usize::from(!queued && !left.contains(answer));
        }
    }
    println!("{rescues} rescues: {again} would leave again, {held} held back in vain, {waiting} wait");
    assert_eq!(again, 0);
    assert!(waiting > held, "{held} are held back in vain, {waiting} wait");
}
