"""Twilio's official Python library against the sandbox, with nothing changed but the host.

Goes through every resource that the sandbox has, reads lists over several pages, looks at errors, and lets Twilio's own
RequestValidator judge the webhooks that come. Ends with 0 if all is as with Twilio.
"""

import json
import os
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

SANDBOX = os.environ["SANDBOX_URL"]
ACCOUNT = os.environ["SANDBOX_ACCOUNT_SID"]
TOKEN = os.environ["SANDBOX_AUTH_TOKEN"]
SERVICE = os.environ["SANDBOX_SERVICE_SID"]
LINE, ANN, BOB, CYD = "+15017122661", "+15555550101", "+15555550102", "+15555550103"

hooks = []


class Hooks(BaseHTTPRequestHandler):
    """Keeps each webhook with the validator's judgement of it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        params = urllib.parse.parse_qs(body, keep_blank_values=True)
        url = f"http://127.0.0.1:{self.server.server_port}{self.path}"
        valid = RequestValidator(TOKEN).validate(url, MultiDict(params), self.headers["X-Twilio-Signature"])
        hooks.append((params, valid))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class MultiDict(dict):
    """What web frameworks hand to the validator: repeated keys are read by getlist."""

    def getlist(self, key):
        return self[key]


def sandbox(method, path, body=None):
    """The sandbox's own endpoints, which Twilio's library does not know."""
    credentials = b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    request = urllib.request.Request(
        f"{SANDBOX}/sandbox/v1{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        text = response.read()
        return json.loads(text) if text else None


def text(sender, to, body):
    return sandbox("POST", f"/handsets/{urllib.parse.quote(sender)}/messages", {"to": to, "body": body})


def received(number):
    return sandbox("GET", f"/handsets/{urllib.parse.quote(number)}/messages")["messages"]


def until(what, look):
    for _ in range(100):
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def refused(code, status, call):
    try:
        call()
    except TwilioRestException as error:
        assert (error.code, error.status) == (code, status), error
        return error
    raise AssertionError(f"expected {code}")


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    client = Client(ACCOUNT, TOKEN)
    client.conversations.base_url = SANDBOX
    conversations = client.conversations.v1
    service = conversations.services(SERVICE)
    assert service.fetch().sid == SERVICE

    # Configuration
    assert conversations.configuration().fetch().default_chat_service_sid == SERVICE
    assert conversations.configuration.webhooks().fetch().target == "webhook"
    filters = ["onConversationAdded", "onConversationStateUpdated", "onParticipantUpdated", "onMessageAdded"]
    hook_url = f"http://127.0.0.1:{server.server_port}/twilio/conversations?tenant=a%20b"
    configured = service.configuration.webhooks().update(
        post_webhook_url=hook_url, method="POST", filters=filters + ["onDeliveryUpdated"]
    )
    assert configured.post_webhook_url == hook_url and len(configured.filters) == 5
    roles = {role.sid: role for role in service.roles.list()}
    assert service.configuration().fetch().default_conversation_role_sid in roles
    address = conversations.address_configurations.create(
        type="sms", address=LINE, auto_creation_enabled=True, auto_creation_conversation_service_sid=SERVICE
    )
    assert conversations.address_configurations(address.sid).fetch().auto_creation["enabled"] is True
    refused(50355, 409, lambda: conversations.address_configurations.create(type="sms", address=LINE))

    # A group at once, asynchronously
    founders = [
        {"messaging_binding": {"address": ANN}},
        {"messaging_binding": {"address": BOB}},
        {"identity": "agent-7", "messaging_binding": {"projected_address": LINE}},
    ]
    made = service.conversation_with_participants.create(
        friendly_name="Home-buying journey",
        participant=[json.dumps(founder) for founder in founders],
        x_twilio_webhook_enabled="true",
    )
    assert made.state == "initializing"
    group = service.conversations(made.sid)
    until("active", lambda: group.fetch().state == "active")
    again = refused(
        50438,
        409,
        lambda: service.conversation_with_participants.create(
            participant=[json.dumps(founder) for founder in founders]
        ),
    )
    assert again.msg.endswith(f"already exists as Conversation {made.sid}"), again.msg

    # Messages, receipts, the hand-over of the line
    sent = group.messages.create(
        author="agent-7", body="Welcome caf\u00e9 \U0001f44d", attributes='{"cid": "1"}', x_twilio_webhook_enabled="true"
    )
    until("receipts", lambda: group.messages(sent.sid).fetch().delivery == {
        "total": 2, "sent": "all", "delivered": "all", "read": "none", "failed": "none", "undelivered": "none",
    })
    receipts = group.messages(sent.sid).delivery_receipts.list()
    assert {receipt.status for receipt in receipts} == {"delivered"} and len(receipts) == 2
    assert group.messages(sent.sid).delivery_receipts(receipts[0].sid).fetch().error_code == 0
    line = next(one for one in group.participants.list() if (one.messaging_binding or {}).get("projected_address"))
    assert group.participants("agent-7").fetch().sid == line.sid
    changed = group.participants(line.sid).update(identity="agent-8", x_twilio_webhook_enabled="true")
    assert changed.identity == "agent-8"
    refused(50513, 400, lambda: group.messages.create(author="agent-7", body="too late"))
    sandbox("PUT", "/identity-replacement", {"identity_replacement": "refuse"})
    refused(50444, 400, lambda: group.participants(line.sid).update(identity="agent-9"))
    sandbox("PUT", "/identity-replacement", {"identity_replacement": "update"})
    assert [message["from"] for message in received(ANN)] == [LINE]

    # Growing and shrinking; what is not allowed
    cyd = group.participants.create(messaging_binding_address=CYD)
    refused(50437, 409, lambda: group.participants.create(messaging_binding_address=CYD))
    refused(50407, 400, lambda: group.participants.create(messaging_binding_address=LINE))
    refused(50434, 400, lambda: group.participants.create(identity="watcher"))
    assert group.participants(cyd.sid).delete()
    refused(20404, 404, lambda: group.participants(cyd.sid).fetch())

    # Inbound, with a repeated key in its webhook
    arrived = text(ANN, [CYD, BOB, LINE], "a group of four")
    assert arrived["outcome"] == "conversation_created"
    other = service.conversations(arrived["conversation_sid"])
    until("autocreation", lambda: other.fetch().state == "active")
    assert other.messages.list()[0].author == ANN

    # Lists over several pages
    for number in range(7):
        service.conversations.create(friendly_name=f"page {number}", unique_name=f"page-{number}")
    listed = service.conversations.list(page_size=3)
    assert len(listed) == 9 and len({one.sid for one in listed}) == 9
    assert len(service.conversations.list(limit=4, page_size=3)) == 4
    assert service.conversations.list(limit=200)[0].sid == made.sid
    page = service.conversations.page(page_size=4)
    assert page.previous_page_url is None and "PageToken=" in page.next_page_url
    assert page.next_page().previous_page_url is not None
    assert [one.index for one in group.messages.list(order="desc")] == [0]
    assert conversations.conversations("page-3").fetch().unique_name == "page-3"
    refused(50353, 409, lambda: service.conversations.create(unique_name="page-3"))
    assert len(service.conversations.list(state="closed")) == 0

    # Timers, update, close, remove
    timed = service.conversations.create(state="active", timers_inactive="PT5M", timers_closed="PT30M")
    assert set(timed.timers) == {"date_inactive", "date_closed"}
    refused(50376, 400, lambda: service.conversations(timed.sid).update(timers_closed="PT1M"))
    assert service.conversations(timed.sid).update(state="closed").state == "closed"
    refused(50377, 400, lambda: service.conversations(timed.sid).update(state="active"))
    assert service.conversations(timed.sid).delete()
    refused(20404, 404, lambda: service.conversations(timed.sid).fetch())
    edited = group.messages(sent.sid).update(body="Welcome")
    assert edited.body == "Welcome" and edited.date_created is not None
    assert group.messages(sent.sid).delete()

    # Memberships and users
    rows = service.participant_conversations.list(address=ANN)
    assert {row.conversation_sid for row in rows} == {made.sid, arrived["conversation_sid"]}
    assert service.participant_conversations.list(identity="agent-8")[0].participant_identity == "agent-8"
    assert {user.identity for user in service.users.list()} == {"agent-7", "agent-8"}
    assert service.users("agent-8").update(friendly_name="Eight").friendly_name == "Eight"
    assert conversations.users.create(identity="agent-9").is_notifiable is None
    assert service.users("agent-8").user_conversations.list()[0].conversation_sid == made.sid

    # A conversation's own webhook
    own = group.webhooks.create(
        target="webhook", configuration_url=hook_url, configuration_filters=["onMessageAdded"], configuration_method="post"
    )
    assert group.webhooks(own.sid).fetch().configuration["filters"] == ["onMessageAdded"]
    assert len(group.webhooks.list()) == 1 and group.webhooks(own.sid).delete()

    # Who may not call
    stranger = Client(ACCOUNT, "wrong")
    stranger.conversations.base_url = SANDBOX
    refused(20003, 401, lambda: stranger.conversations.v1.services(SERVICE).fetch())

    # The webhooks that came meanwhile, judged by Twilio's own validator
    until("webhooks", lambda: any("MessagingBinding.AuthorAddress" in params for params, _ in hooks))
    until("receipts told", lambda: sum(params["EventType"] == ["onDeliveryUpdated"] for params, _ in hooks) >= 4)
    assert all(valid for _, valid in hooks)
    added = next(params for params, _ in hooks if "MessagingBinding.AuthorAddress" in params)
    assert added["MessagingBinding.Address"] == [CYD, BOB, LINE]
    seen = {params["EventType"][0] for params, _ in hooks}
    assert seen == {*filters, "onDeliveryUpdated"}, seen
    print(f"python: all as with Twilio, {len(hooks)} webhooks valid")


main()
