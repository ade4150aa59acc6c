"""Puts ids that exist into what schemathesis generates, so that the answers with 200 are checked as well.

`CONTRACT_IDS` holds them as JSON: channel, conversations, senders, messages (each as [conversation, message]).
"""

import json
import os

import schemathesis

IDS = json.loads(os.environ.get("CONTRACT_IDS", "null"))
_turn = 0


def turn(values):
    """The values in turn: what a run covers does not depend on chance."""
    global _turn
    _turn += 1
    return values[_turn % len(values)]


@schemathesis.hook
def map_body(context, body):
    # A part's name stands in a header, and no header carries control characters.
    if isinstance(body, dict):
        return {name: value for name, value in body.items() if name.isprintable()}
    return body


if IDS:

    @schemathesis.hook
    def before_call(context, case, kwargs):
        path = case.path_parameters or {}
        path["providerChannelId"] = IDS["channel"]
        conversation, message = turn(IDS["messages"])
        if "sourceMessageId" in path:
            path["sourceMessageId"] = message
        if "sourceConversationId" in path:
            path["sourceConversationId"] = conversation if "sourceMessageId" in path else turn(IDS["conversations"])[0]
        if "senderId" in path:
            path["senderId"] = turn(IDS["senders"])
        query = case.query or {}
        if "after" in query and _turn % 3:
            query["after"] = ""
        if isinstance(case.body, dict) and "conversationId" in case.body:
            conversation, recipient = turn(IDS["conversations"])
            case.body["conversationId"] = conversation
            case.body["recipientIds[]"] = [recipient]
