//! The seven endpoints on the store.

use std::sync::{Arc, PoisonError};

use hyper::body::Incoming;
use hyper::{Request, Response};
use log::{error, info};

use super::auth::Caller;
use super::reply::{self, Body};
use super::service::{Context, Served};
use super::{clock, post};
use crate::domain::{
    Address, AttachmentId, ConversationId, MessageId, Participant, ParticipantId, Sequence, Timestamp,
};
use crate::protocol::avatar::Avatar;
use crate::protocol::pipedrive::manifest::body::{self, Conversation, ConversationBody, MessageBody};
use crate::protocol::pipedrive::manifest::{ApiCall, Code, Cursor, Failure, PageRequest, page_request};
use crate::store::{Activity, ChannelLink, ConversationView, Reader, StoreError};

/// Answers a call of an authenticated caller.
pub(super) async fn answer(
    context: &Arc<Context>,
    _caller: Caller,
    call: ApiCall,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let Some(channel) = context.channels.get(call.channel()) else {
        return Err(Failure::new(Code::NotFound, "no such channel"));
    };
    let now = clock::now();
    let query = || page_request(request.uri().query().unwrap_or_default());
    let body = match call {
        ApiCall::GetConversations { .. } => {
            let page = query();
            read(context, channel, move |view| view.conversations(&page, now)).await?
        }
        ApiCall::GetConversationById { conversation, .. } => {
            let page = query();
            let body = read(context, channel, move |view| {
                view.conversation(conversation, &page, now)
            })
            .await?;
            // Only this call proves that Pipedrive gets through to a conversation that it does not know.
            context.store.note_served(conversation);
            body
        }
        ApiCall::PostMessage { .. } => post::answer(context, channel, request, now).await?,
        ApiCall::GetSenderById { sender, .. } => {
            read(context, channel, move |view| view.sender(&sender)).await?
        }
        ApiCall::GetTemplates { .. } => templates(context, channel),
        ApiCall::GetMessageById {
            conversation,
            message,
            ..
        } => {
            read(context, channel, move |view| {
                view.message(conversation, message, now)
            })
            .await?
        }
        ApiCall::DeleteChannelById { .. } => unlink(context, channel, now).await?,
    };
    Ok(reply::json(200, body))
}

fn templates(context: &Context, channel: &Served) -> Vec<u8> {
    let templates = context.templates.read().unwrap_or_else(PoisonError::into_inner);
    let of_channel: Vec<_> = templates
        .iter()
        .filter(|template| template.is_for(&channel.id))
        .map(|template| body::Template {
            id: &template.id,
            name: &template.name,
            content: &template.content,
            language: &template.language,
        })
        .collect();
    body::templates(&of_channel)
}

/// Runs a read and the writing of its JSON off the async threads.
async fn read(
    context: &Arc<Context>,
    channel: &Arc<Served>,
    answer: impl FnOnce(&View<'_>) -> Result<Vec<u8>, Failure> + Send + 'static,
) -> Result<Vec<u8>, Failure> {
    let (reader, for_answer, channel) = (context.store.reader(), Arc::clone(context), Arc::clone(channel));
    let answered = context.reads.run(move || {
        answer(&View {
            reader: &reader,
            context: &for_answer,
            channel: &channel,
        })
    });
    answered
        .await
        .unwrap_or_else(|| Err(store_failure(StoreError::Closed)))
}

/// What a failure of the store means for the caller.
pub(super) fn store_failure(failure: StoreError) -> Failure {
    match failure {
        StoreError::UnknownConversation => Failure::new(Code::NotFound, "no such conversation"),
        StoreError::UnknownMessage => Failure::new(Code::NotFound, "no such message"),
        StoreError::ConversationClosed => Failure::new(Code::Forbidden, "the conversation is closed"),
        StoreError::TextTooLong(_) => Failure::new(Code::PayloadTooLarge, "the message is too long"),
        StoreError::NoSpace => Failure::new(Code::ServiceUnavailable, "the gateway has no space to store it"),
        StoreError::Closed | StoreError::Failed(_) => {
            Failure::new(Code::ServiceUnavailable, "the gateway is stopping")
        }
        other => {
            error!(reason = other.to_string().as_str(); "The store did not answer a request");
            Failure::new(
                Code::InternalError,
                "the gateway could not read or write its store",
            )
        }
    }
}

fn no_conversation() -> Failure {
    Failure::new(Code::NotFound, "no such conversation")
}

fn bad_cursor() -> Failure {
    Failure::new(
        Code::NotFound,
        "no such page: the cursor is not one of this gateway",
    )
}

/// The store as seen through one channel.
struct View<'a> {
    reader: &'a Reader,
    context: &'a Context,
    channel: &'a Served,
}

impl View<'_> {
    fn conversations(&self, page: &PageRequest, now: Timestamp) -> Result<Vec<u8>, Failure> {
        let cursor = Cursor::Conversations(&self.channel.id);
        let before = match &page.after {
            Some(after) => Some(Activity(cursor.decode(after).ok_or_else(bad_cursor)?)),
            None => None,
        };
        let (mut views, next) = self
            .reader
            .conversations(&self.channel.id, page.conversations, before, page.messages)
            .map_err(store_failure)?;
        let link = self.linker(now);
        let faces: Vec<_> = views.iter_mut().map(|view| self.add_faces(view)).collect();
        let shown: Vec<_> = views
            .iter()
            .zip(&faces)
            .map(|(view, face)| self.show(view, face.as_deref(), &link))
            .collect();
        Ok(body::conversations_page(
            &self.channel.id,
            &shown,
            next.map(|activity| activity.0),
        ))
    }

    fn conversation(
        &self,
        id: ConversationId,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Vec<u8>, Failure> {
        let before = match &page.after {
            Some(after) => Some(Sequence(
                Cursor::Messages(id).decode(after).ok_or_else(bad_cursor)?,
            )),
            None => None,
        };
        let mut view = self.own(id, page.messages, before)?;
        let face = self.add_faces(&mut view);
        let link = self.linker(now);
        Ok(body::conversation_page(&self.show(&view, face.as_deref(), &link)))
    }

    /// A conversation, if it is one of this channel's.
    fn own(
        &self,
        id: ConversationId,
        messages: usize,
        before: Option<Sequence>,
    ) -> Result<ConversationView, Failure> {
        let found = self
            .reader
            .conversation(id, messages, before)
            .map_err(store_failure)?;
        found
            .filter(|view| view.channel == self.channel.id)
            .ok_or_else(no_conversation)
    }

    fn message(
        &self,
        conversation: Option<ConversationId>,
        id: MessageId,
        now: Timestamp,
    ) -> Result<Vec<u8>, Failure> {
        let unknown = || Failure::new(Code::NotFound, "no such message");
        if conversation.is_some_and(|conversation| conversation != id.conversation) {
            return Err(unknown());
        }
        let found = self.reader.message(id).map_err(store_failure)?;
        let (_, message) = found
            .filter(|(channel, _)| *channel == self.channel.id)
            .ok_or_else(unknown)?;
        let link = self.linker(now);
        Ok(body::message(&MessageBody::new(&message, &link)))
    }

    fn sender(&self, id: &ParticipantId) -> Result<Vec<u8>, Failure> {
        let unknown = || Failure::new(Code::NotFound, "no such sender");
        let ParticipantId::EndUser { conversation, .. } = id else {
            let source = self.channel.source();
            let own = *id == ParticipantId::Source(self.channel.provider_id.clone());
            return own
                .then(|| body::sender(id, source.name, source.avatar_url))
                .ok_or_else(unknown);
        };
        let found = self.reader.participant(id).map_err(store_failure)?;
        if let Some((channel, one)) = found {
            let own = channel == self.channel.id;
            return own
                .then(|| body::sender(id, &one.name, Some(&self.face_of(&one))))
                .ok_or_else(unknown);
        }
        // The stand-in of a conversation in which no customer has written yet.
        if *id == body::first_customer(*conversation) {
            let view = self.own(*conversation, 1, None).map_err(|_| unknown())?;
            let face = self.face(&view.name, view.address.as_str());
            return Ok(body::sender(id, &view.name, Some(&face)));
        }
        Err(unknown())
    }

    /// A link to a picture of somebody.
    fn face(&self, name: &str, address: &str) -> String {
        let context = self.context;
        Avatar::of(name, address).url(&context.public_url, &context.media_secret)
    }

    fn face_of(&self, one: &Participant) -> String {
        self.face(&one.name, one.address.as_ref().map_or("", Address::as_str))
    }

    /// Gives everyone who takes part a picture. Returns that of the conversation's address when nobody has written.
    fn add_faces(&self, view: &mut ConversationView) -> Option<String> {
        for one in &mut view.participants {
            one.avatar_url = Some(self.face_of(one));
        }
        view.participants
            .is_empty()
            .then(|| self.face(&view.name, view.address.as_str()))
    }

    fn linker(&self, now: Timestamp) -> impl Fn(AttachmentId) -> String {
        move |id| self.context.link(id, now)
    }

    fn show<'b>(
        &'b self,
        view: &'b ConversationView,
        face: Option<&'b str>,
        link: &'b dyn Fn(AttachmentId) -> String,
    ) -> ConversationBody<'b> {
        let view = Conversation {
            id: view.id,
            name: &view.name,
            avatar_url: face,
            seen: view.seen,
            status: view.status,
            participants: &view.participants,
            messages: &view.messages,
            next: view.next,
        };
        ConversationBody::new(view, self.channel.source(), link)
    }
}

/// Pipedrive lets the channel go: data is kept, nothing is pushed until it is registered again.
async fn unlink(context: &Context, channel: &Served, now: Timestamp) -> Result<Vec<u8>, Failure> {
    let id = channel.id.clone();
    let link = context
        .store
        .read(move |reader| reader.channel_link(&id))
        .await
        .map_err(store_failure)?;
    if !matches!(link, ChannelLink::Unlinked { .. }) {
        let unlinked = ChannelLink::Unlinked {
            since: now,
            reason: "removed in Pipedrive".to_owned(),
        };
        context
            .store
            .set_channel_link(&channel.id, unlinked)
            .await
            .map_err(store_failure)?;
        info!(channel = channel.id.as_str(); "Pipedrive removed the channel; its messages are kept");
    }
    Ok(body::done())
}
