//! Who leaves when all places are taken and somebody else wants in.
//!
//! Slow peers are cheap to make and could hold every place until a timeout; turning away who comes then would shut
//! out Pipedrive. So whoever has had time and made nothing of it goes first.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::guard::{Phase, Standing};

/// How long a connection may take for its TLS handshake and the head of a request, or a stranger for taking an
/// answer, before it can be asked to leave: several times what Pipedrive needs through a tunnel.
const GRACE: Duration = Duration::from_secs(1);

/// What asking somebody to leave came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Somebody was asked: a place is free soon.
    Soon,
    /// Nobody can be asked before.
    NotBefore(Instant),
    /// All work on requests of callers with the right credentials.
    None,
}

/// The connections that hold places.
#[derive(Default)]
pub(super) struct Crowd {
    members: Vec<Weak<Phase>>,
}

impl Crowd {
    /// Counts a new connection in.
    pub(super) fn join(&mut self, phase: &Arc<Phase>) {
        // Grows with the most connections that there were at a time.
        if self.members.len() == self.members.capacity() {
            self.members.retain(|member| member.strong_count() > 0);
        }
        self.members.push(Arc::downgrade(phase));
    }

    /// Asks one connection to leave.
    pub(super) fn make_room(&mut self, now: Instant) -> Room {
        self.members.retain(|member| member.strong_count() > 0);
        let mut first: Option<((u8, Instant), Arc<Phase>)> = None;
        let mut next: Option<Instant> = None;
        for phase in self.members.iter().filter_map(Weak::upgrade) {
            let (rank, since, grace) = match phase.standing() {
                Standing::Done => (0, phase.since(), Duration::ZERO),
                Standing::Arriving => (1, phase.since(), GRACE),
                Standing::Idle => (2, phase.since(), Duration::ZERO),
                Standing::Stranger => (3, phase.since(), GRACE),
                Standing::Caller | Standing::Leaving => continue,
            };
            if now < since + grace {
                next = next.into_iter().chain([since + grace]).min();
            } else if first.as_ref().is_none_or(|(key, _)| (rank, since) < *key) {
                first = Some(((rank, since), phase));
            }
        }
        match (first, next) {
            (Some((_, phase)), _) => {
                phase.leave();
                Room::Soon
            }
            (None, Some(next)) => Room::NotBefore(next),
            (None, None) => Room::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds into the test's own time.
    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    fn one(crowd: &mut Crowd) -> Arc<Phase> {
        let phase = Phase::new();
        crowd.join(&phase);
        phase
    }

    #[tokio::test(start_paused = true)]
    async fn who_arrives_is_left_alone_for_a_while_and_then_the_oldest_goes() {
        let mut crowd = Crowd::default();
        let oldest = one(&mut crowd);
        pass(300).await;
        let younger = one(&mut crowd);
        let due = Instant::now() + Duration::from_millis(700);
        assert_eq!(crowd.make_room(Instant::now()), Room::NotBefore(due));
        pass(700).await;
        assert_eq!(crowd.make_room(Instant::now()), Room::Soon);
        assert!(oldest.standing() == Standing::Leaving && younger.standing() == Standing::Arriving);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_arrivals_go_before_idle_callers_and_those_before_a_strangers_answer() {
        let mut crowd = Crowd::default();
        let stranger = one(&mut crowd);
        stranger.busy();
        pass(5_000).await;
        let idle = one(&mut crowd);
        idle.busy();
        idle.idle();
        pass(2_000).await;
        let slow = one(&mut crowd);
        pass(1_000).await;
        for expected in [&slow, &idle, &stranger] {
            assert_eq!(crowd.make_room(Instant::now()), Room::Soon);
            assert!(expected.standing() == Standing::Leaving);
        }
        assert_eq!(crowd.make_room(Instant::now()), Room::None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_with_the_right_credentials_is_never_interrupted() {
        let mut crowd = Crowd::default();
        let caller = one(&mut crowd);
        caller.busy();
        caller.trust();
        pass(60_000).await;
        assert_eq!(crowd.make_room(Instant::now()), Room::None);
        // The next request on the connection has to show its own.
        caller.idle();
        caller.busy();
        pass(1_000).await;
        assert_eq!(crowd.make_room(Instant::now()), Room::Soon);
    }

    #[tokio::test]
    async fn connections_that_are_gone_take_no_memory() {
        let mut crowd = Crowd::default();
        for _ in 0..10_000 {
            drop(one(&mut crowd));
        }
        assert!(crowd.members.capacity() < 16, "{}", crowd.members.capacity());
    }
}
