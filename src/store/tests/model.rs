//! Whatever is done in whatever order, the store shows what a simple model shows.

use proptest::prelude::*;

use super::keeping::DAY;
use super::*;
use crate::domain::{DeliveryState, DeviceStatus, OutgoingState, StatusTarget};

#[derive(Clone, Debug)]
enum Step {
    Incoming { from: u8, bytes: usize },
    Answer { of: usize },
    Report { of: usize },
    Deliver,
    Maintain,
    Delete { of: usize },
    Renew { rounds: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..3, 0_usize..700).prop_map(|(from, bytes)| Step::Incoming { from, bytes }),
        3 => (0_usize..1000).prop_map(|of| Step::Answer { of }),
        3 => (0_usize..1000).prop_map(|of| Step::Report { of }),
        2 => Just(Step::Deliver),
        3 => Just(Step::Maintain),
        1 => (0_usize..1000).prop_map(|of| Step::Delete { of }),
        2 => (0_usize..12).prop_map(|rounds| Step::Renew { rounds }),
        1 => Just(Step::Restart),
    ]
}

/// What a message should look like: its text, and for an answer its state.
type Model = BTreeMap<MessageId, (String, Option<OutgoingState>)>;

fn compare(bed: &Bed, model: &Model) {
    let mut by_conversation: BTreeMap<ConversationId, Vec<String>> = BTreeMap::new();
    for (id, (text, state)) in model {
        let found = bed.message(*id);
        assert_eq!(found.text, *text);
        if let (DeliveryState::Outgoing(found), Some(state)) = (found.state, state) {
            assert_eq!(found, *state);
        }
        by_conversation
            .entry(id.conversation)
            .or_default()
            .insert(0, text.clone());
    }
    for (id, texts) in &by_conversation {
        assert_eq!(bed.texts(*id), *texts);
    }
    let counts = bed.store.counts();
    assert_eq!(counts.messages, model.len() as u64);
    assert_eq!(counts.conversations, by_conversation.len() as u64);
    let bytes: usize = model.values().map(|(text, _)| text.len() + 64).sum();
    assert_eq!(counts.logical_bytes, bytes as u64);
}

async fn run(steps: Vec<Step>) {
    let mut bed = Bed::new();
    let mut model = Model::new();
    for (number, step) in steps.into_iter().enumerate() {
        let pick = |model: &Model, of: usize| model.keys().nth(of % model.len().max(1)).copied();
        match step {
            Step::Incoming { from, bytes } => {
                let text = format!("{number} {}", "x".repeat(bytes));
                let id = bed.incoming(&format!("+49{from}"), &text).await;
                model.insert(id, (text, None));
            }
            Step::Answer { of } => {
                let Some(id) = pick(&model, of) else { continue };
                let text = format!("{number} answer");
                let order = outgoing(id.conversation, &text);
                let id = bed.store.insert_outgoing(order).await.unwrap();
                bed.store.start_attempt(id, at(0)).await.unwrap().unwrap();
                bed.store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
                model.insert(id, (text, Some(OutgoingState::Sent)));
            }
            Step::Report { of } => {
                let Some(id) = pick(&model, of) else { continue };
                let report = StatusReport {
                    channel: channel(),
                    of: StatusTarget::Id(id),
                    status: DeviceStatus::Delivered,
                };
                bed.store.apply_status(report).await.unwrap();
                if let Some((_, Some(state))) = model.get_mut(&id) {
                    *state = OutgoingState::Delivered;
                }
            }
            Step::Deliver => drop(bed.drain_uplink().await),
            Step::Maintain => drop(bed.maintain(at(DAY)).await),
            Step::Delete { of } => {
                let Some(id) = pick(&model, of) else { continue };
                assert!(bed.store.delete_conversation(id.conversation).await.unwrap());
                model.retain(|other, _| other.conversation != id.conversation);
            }
            Step::Renew { rounds } => {
                // Other steps come between, and what is under way then goes on with the next one.
                bed.force();
                for _ in 0..rounds {
                    bed.step().await;
                }
            }
            Step::Restart => {
                bed = bed.restart().await;
                compare(&bed, &model);
            }
        }
    }
    compare(&bed, &model);
    // In the end everything that can be told is told, and grows too old.
    bed.drain_uplink().await;
    bed.maintain(at(DAY)).await;
    compare(&bed, &model);
    let removed = bed.maintain(at(900 * DAY)).await.removed;
    assert_eq!(removed, model.len() as u64);
    assert_eq!(bed.store.counts().conversations, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_leave_what_the_model_has(steps in proptest::collection::vec(step(), 1..160)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
