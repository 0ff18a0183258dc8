//! The running emulator: the account behind its lock, and the tasks that do what its effects ask for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ids::{AccountSid, ApiKeySid, ConversationSid, MessageSid, ServiceSid};

use super::faults::{Dice, WebhookPlan};
use super::model::carrier::CarryStep;
use super::model::refusal::{Refusal, WEBHOOK_REFUSED};
use super::model::setup::SetupStep;
use super::model::webhook::{Event, EventName};
use super::model::{Account, Effect};
use super::pending::Pending;
use super::sender::{Revision, Sender, Verdict};

/// How often timers are looked at when nobody asks for anything.
const TICK: Duration = Duration::from_millis(200);

pub(crate) struct World {
    account: Mutex<Account>,
    pub(crate) sender: Arc<Sender>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) pending: Pending,
    pub(crate) credentials: Credentials,
    pub(crate) base_url: String,
    /// From the creation of a conversation with participants to `active`.
    pub(crate) activation_delay: Duration,
    pub(crate) tasks: TaskTracker,
    /// Ends everything at once.
    pub(crate) ended: CancellationToken,
}

/// Who may call: the account with its token, or an API key with its secret.
pub(crate) struct Credentials {
    pub(crate) account: AccountSid,
    pub(crate) token: SecretString,
    pub(crate) api_key: Option<(ApiKeySid, SecretString)>,
}

/// What [`World::new`] puts together.
pub(crate) struct Parts {
    pub(crate) account: Account,
    pub(crate) sender: Arc<Sender>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) pending: Pending,
    pub(crate) credentials: Credentials,
    pub(crate) base_url: String,
    pub(crate) activation_delay: Duration,
}

impl World {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            account: Mutex::new(parts.account),
            sender: parts.sender,
            dice: parts.dice,
            pending: parts.pending,
            credentials: parts.credentials,
            base_url: parts.base_url,
            activation_delay: parts.activation_delay,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Runs `action` on the account as it is now, and sets off what follows from it. Webhooks are queued before the
    /// lock is given back, so that they are queued in the order of what they tell.
    pub(crate) fn act<T>(self: &Arc<Self>, action: impl FnOnce(&mut Account) -> T) -> T {
        self.act_with(None, action)
    }

    /// As [`World::act`], with a fault for the webhooks that it causes at once.
    pub(crate) fn act_with<T>(
        self: &Arc<Self>,
        plan: Option<WebhookPlan>,
        action: impl FnOnce(&mut Account) -> T,
    ) -> T {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.run_timers();
        let outcome = action(&mut account);
        for effect in account.take_effects() {
            self.set_off(effect, plan);
        }
        outcome
    }

    fn set_off(self: &Arc<Self>, effect: Effect, plan: Option<WebhookPlan>) {
        match effect {
            Effect::Send { hook, event } => {
                if let Some(lane) = self.sender.enqueue(hook, event, plan) {
                    self.spawn(lane.run());
                }
            }
            Effect::SetUp(conversation) => self.spawn(Arc::clone(self).set_up(conversation)),
            Effect::Carry {
                conversation,
                message,
            } => {
                self.spawn(Arc::clone(self).carry(conversation, message));
            }
        }
    }

    /// Work that `settled` waits for and `stop` ends.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (pending, ended) = (self.pending.begin(), self.ended.clone());
        self.tasks.spawn(async move {
            let _pending = pending;
            ended.run_until_cancelled(work).await
        });
    }

    async fn set_up(self: Arc<Self>, conversation: ConversationSid) {
        let founders = self.act(|account| {
            let setup = account
                .register
                .get(&conversation)
                .and_then(|found| found.setup.as_ref());
            setup.map_or(0, |setup| setup.founders.len())
        });
        let steps = u32::try_from(founders + 1).expect("a conversation has at most ten founders");
        loop {
            tokio::time::sleep(self.activation_delay / steps).await;
            if self.act(|account| account.set_up_next(&conversation)) == SetupStep::Done {
                return;
            }
        }
    }

    async fn carry(self: Arc<Self>, conversation: ConversationSid, message: MessageSid) {
        loop {
            // Carriers take their time as well; it is short enough for a receipt to overtake the answer to the post.
            tokio::time::sleep(self.activation_delay / 10).await;
            if self.act(|account| account.carry_next(&conversation, &message)) == CarryStep::Done {
                return;
            }
        }
    }

    /// Lets timers take effect while nobody asks for anything.
    pub(crate) fn start_ticking(self: &Arc<Self>) {
        let world = Arc::clone(self);
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            let ticking = async {
                loop {
                    tokio::time::sleep(TICK).await;
                    world.act(|_| ());
                }
            };
            ended.run_until_cancelled(ticking).await
        });
    }

    /// Asks the pre-action webhook about a change, if there is one for it, and puts its answer into `fields`.
    ///
    /// Nothing is locked while it is asked. The change is checked again when it is made.
    pub(crate) async fn permit<F>(
        self: &Arc<Self>,
        service: &ServiceSid,
        name: EventName,
        fields: &mut F,
        ask: impl FnOnce(&Account, &F) -> Result<Event, Refusal>,
        revise: impl FnOnce(&mut F, Revision),
    ) -> Result<(), Refusal> {
        let asked = self.act(|account| match account.pre_hook(service, name) {
            Some(hook) => ask(account, fields).map(|event| Some((hook, event))),
            None => Ok(None),
        })?;
        let Some((hook, event)) = asked else {
            return Ok(());
        };
        match self.sender.ask(&hook, &event).await {
            Verdict::Proceed => Ok(()),
            Verdict::Revise(revision) => {
                revise(fields, revision);
                Ok(())
            }
            Verdict::Reject => Err(WEBHOOK_REFUSED.refuse()),
        }
    }

    /// Waits until no webhook is under way, no conversation is being set up and no receipt is outstanding.
    pub(crate) async fn settled(self: &Arc<Self>) {
        self.act(|_| ());
        self.pending.settled().await;
    }
}
