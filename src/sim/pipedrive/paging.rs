//! Reading a channel's whole history from the gateway, as Pipedrive does after a channel is registered, and the
//! proof that no page skips or repeats anything.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::served::{self, Served};

/// Pages read in one go before giving up: a cursor that never ends.
const PAGES: u32 = 200_000;

/// How large the pages are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageSize {
    /// Conversations on a page of getConversations.
    pub conversations: u32,
    /// Messages of each conversation on a page.
    pub messages: u32,
}

impl Default for PageSize {
    fn default() -> Self {
        Self {
            conversations: 30,
            messages: 30,
        }
    }
}

/// What a pass over a channel's history found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// Conversations served.
    pub conversations: usize,
    /// Messages served.
    pub messages: usize,
    /// Pages read, both kinds.
    pub pages: u32,
    /// Broken rules; also recorded as violations.
    pub problems: Vec<String>,
    /// Whether the end was reached.
    pub complete: bool,
}

/// What one conversation's pages gave.
#[derive(Default)]
struct Walk {
    /// In the order served: newest first.
    ids: Vec<String>,
    cursors: HashSet<String>,
}

impl Core {
    /// Follows both kinds of cursor to their ends and compares with what was known before.
    pub(super) async fn page_history(&self, channel: &str, size: PageSize) -> History {
        let before = self.read(|state| {
            let conversations = state.channels.get(channel).map(|c| &c.conversations);
            let known = conversations.into_iter().flatten().map(|(id, conversation)| {
                let messages: Vec<String> = conversation.messages.iter().map(|m| m.id.to_string()).collect();
                (id.to_string(), (conversation.recency, messages))
            });
            known.collect::<HashMap<String, (i64, Vec<String>)>>()
        });
        let mut history = History::default();
        let mut walks: HashMap<String, Walk> = HashMap::new();
        let mut cursors = HashSet::new();
        let mut after = String::new();
        loop {
            history.pages += 1;
            let asked = self
                .get_conversations(channel, size.conversations, size.messages, &after)
                .await;
            let Some(body) = asked.value else {
                history.problems.extend(asked.problems);
                break;
            };
            history.problems.extend(asked.problems);
            let list = body
                .get("data")
                .and_then(serde_json::Value::as_array)
                .cloned()
                .unwrap_or_default();
            self.too_many(
                "conversations on a page",
                list.len(),
                size.conversations,
                &mut history,
            );
            for conversation in &list {
                let served = Served::read(conversation);
                if walks.contains_key(&served.id) {
                    self.found(
                        &mut history,
                        format!("conversation {} is on two pages", served.id),
                    );
                    continue;
                }
                let walk = self.walk_conversation(channel, served, size, &mut history).await;
                walks.insert(walk.0, walk.1);
            }
            after = body
                .get("additional_data")
                .map(|d| served::text(d, "after"))
                .unwrap_or_default();
            if after.is_empty() {
                history.complete = true;
                break;
            }
            if list.is_empty() {
                self.found(&mut history, "an empty page has a cursor".to_owned());
                break;
            }
            if !cursors.insert(after.clone()) || history.pages >= PAGES {
                self.found(
                    &mut history,
                    "the cursors of getConversations never end".to_owned(),
                );
                break;
            }
        }
        history.conversations = walks.len();
        history.messages = walks.values().map(|walk| walk.ids.len()).sum();
        if history.complete {
            for problem in self.gaps(channel, &before, &walks) {
                self.found(&mut history, problem);
            }
        }
        history
    }

    /// Reads one conversation to its beginning.
    async fn walk_conversation(
        &self,
        channel: &str,
        first: Served,
        size: PageSize,
        history: &mut History,
    ) -> (String, Walk) {
        let id = first.id.clone();
        let mut walk = Walk::default();
        let mut seen = HashSet::new();
        let mut page = first;
        loop {
            self.too_many("messages on a page", page.messages.len(), size.messages, history);
            for message in &page.messages {
                if seen.insert(message.id.clone()) {
                    walk.ids.push(message.id.clone());
                } else {
                    self.found(
                        history,
                        format!("message {} of conversation {id} is on two pages", message.id),
                    );
                }
            }
            let cursor = page.cursor.clone();
            let empty = page.messages.is_empty();
            self.take_in(channel, page, "getConversations");
            if cursor.is_empty() {
                return (id, walk);
            }
            if empty {
                self.found(
                    history,
                    format!("an empty page of conversation {id} has a cursor"),
                );
                return (id, walk);
            }
            if !walk.cursors.insert(cursor.clone()) || history.pages >= PAGES {
                self.found(history, format!("the cursors of conversation {id} never end"));
                return (id, walk);
            }
            history.pages += 1;
            let asked = self.get_conversation(channel, &id, size.messages, &cursor).await;
            history.problems.extend(asked.problems.clone());
            match asked.value.as_ref().and_then(|body| body.get("data")) {
                Some(data) => page = Served::read(data),
                None => return (id, walk),
            }
        }
    }

    /// What was known before the pass must have been served, in the order in which it was posted.
    fn gaps(
        &self,
        channel: &str,
        before: &HashMap<String, (i64, Vec<String>)>,
        walks: &HashMap<String, Walk>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        for (id, (recency, messages)) in before {
            let Some(walk) = walks.get(id) else {
                // One that moved up while pages were read may be missed in this pass: it was pushed anyway.
                let moved = self.read(|s| s.conversation(channel, id).is_none_or(|c| c.recency != *recency));
                if !moved {
                    problems.push(format!("conversation {id} is on no page"));
                }
                continue;
            };
            let served: HashSet<&str> = walk.ids.iter().map(String::as_str).collect();
            for message in messages
                .iter()
                .filter(|message| !served.contains(message.as_str()))
            {
                problems.push(format!("message {message} of conversation {id} is on no page"));
            }
        }
        for (id, walk) in walks {
            problems.extend(self.read(|state| {
                let served: Vec<(&str, u64)> = walk
                    .ids
                    .iter()
                    .filter_map(|message| state.message(channel, message))
                    // An answer of an agent is posted when its status changes, long after it has its place.
                    .filter(|message| message.posted > 0 && !message.outgoing)
                    .map(|message| (&*message.id, message.posted))
                    .collect();
                let wrong = served.windows(2).find_map(|pair| match pair {
                    [(newer, a), (older, b)] if a < b => Some((*newer, *older)),
                    _ => None,
                });
                wrong.map(|(newer, older)| {
                    format!(
                        "conversation {id}: message {older} was posted after {newer}, but is served as older"
                    )
                })
            }));
        }
        problems
    }

    fn found(&self, history: &mut History, problem: String) {
        self.violations("paging", std::slice::from_ref(&problem));
        history.problems.push(problem);
    }
    fn too_many(&self, what: &str, count: usize, limit: u32, history: &mut History) {
        if u64::try_from(count).unwrap_or(u64::MAX) > u64::from(limit) {
            self.found(
                history,
                format!("{count} {what}, although {limit} were asked for"),
            );
        }
    }
}
