'use strict';
// Which row an event changes: what both contestants know of Twilio's events.

const CONVERSATION = {
  table: 'conversation',
  keys: ['conversation_sid'],
  columns: (e) => ({
    conversation_sid: e.ConversationSid,
    account_sid: e.AccountSid,
    service_sid: e.ChatServiceSid,
    friendly_name: e.FriendlyName,
    attributes: e.Attributes,
    state: e.State,
    created_at: e.DateCreated,
    version_at: e.DateUpdated || e.DateCreated,
  }),
};

const PARTICIPANT = {
  table: 'participant',
  keys: ['conversation_sid', 'participant_sid'],
  columns: (e) => ({
    conversation_sid: e.ConversationSid,
    participant_sid: e.ParticipantSid,
    account_sid: e.AccountSid,
    address: e['MessagingBinding.Address'],
    binding_type: e['MessagingBinding.Type'],
    attributes: e.Attributes,
    created_at: e.DateCreated,
    version_at: e.DateUpdated || e.DateCreated,
  }),
};

const MESSAGE = {
  table: 'message',
  keys: ['conversation_sid', 'message_sid'],
  columns: (e) => ({
    conversation_sid: e.ConversationSid,
    message_sid: e.MessageSid,
    account_sid: e.AccountSid,
    message_index: e.Index,
    author: e.Author,
    participant_sid: e.ParticipantSid,
    body: e.Body,
    attributes: e.Attributes,
    source: e.Source,
    created_at: e.DateCreated,
    version_at: e.DateUpdated || e.DateCreated,
  }),
};

const DELIVERY = {
  table: 'delivery_receipt',
  keys: ['conversation_sid', 'message_sid', 'delivery_receipt_sid'],
  columns: (e) => ({
    conversation_sid: e.ConversationSid,
    message_sid: e.MessageSid,
    delivery_receipt_sid: e.DeliveryReceiptSid,
    account_sid: e.AccountSid,
    participant_sid: e.ParticipantSid,
    channel_message_sid: e.ChannelMessageSid,
    status: e.Status,
    error_code: e.ErrorCode,
    created_at: e.DateCreated,
    version_at: e.DateUpdated || e.DateCreated,
  }),
};

const EVENTS = new Map([
  ['onConversationAdded', CONVERSATION],
  ['onConversationUpdated', CONVERSATION],
  ['onParticipantAdded', PARTICIPANT],
  ['onParticipantUpdated', PARTICIPANT],
  ['onMessageAdded', MESSAGE],
  ['onMessageUpdated', MESSAGE],
  ['onDeliveryUpdated', DELIVERY],
]);

/** The upsert of one row; an older version changes nothing. Its values are the parameters from `first` on. */
function upsert({ table, keys, columns }, first, from) {
  const names = Object.keys(columns({}));
  const types = { message_index: '::bigint', created_at: '::timestamptz', version_at: '::timestamptz' };
  const values = names.map((name, place) => `$${first + place}${types[name] || '::text'}`);
  const sets = names.filter((name) => !keys.includes(name)).map((name) => `${name} = excluded.${name}`);
  return `insert into ${table} (${names.join(', ')}) select ${values.join(', ')}${from}
    on conflict (${keys.join(', ')}) do update set ${sets.join(', ')}
    where ${table}.version_at < excluded.version_at`;
}

const PATH = '/webhooks/twilio/conversations';

module.exports = { EVENTS, PATH, upsert };
