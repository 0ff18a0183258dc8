//! Who waits for a client to send its next request, in the order in which they began to wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

/// The connections without a request in progress: they can be cut at no loss.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// By when they sat down; the token cuts the connection.
    taken: BTreeMap<u64, CancellationToken>,
}

/// One connection's place: in the room while it waits, outside while it is busy.
#[derive(Debug, Clone)]
pub(super) struct Presence(Arc<Place>);

/// Keeps a connection out of the room: a request is in progress, or an answer is on its way.
#[derive(Debug)]
pub(super) struct Busy(Presence);

#[derive(Debug)]
struct Place {
    room: Arc<WaitingRoom>,
    cut: CancellationToken,
    occupation: Mutex<Occupation>,
}

#[derive(Debug, Default)]
struct Occupation {
    busy: usize,
    /// Taken exactly while nothing keeps the connection busy.
    seat: Option<u64>,
}

impl WaitingRoom {
    /// Seats a new connection, which `cut` ends.
    pub(super) fn enter(self: &Arc<Self>, cut: CancellationToken) -> Presence {
        let place = Place {
            room: Arc::clone(self),
            cut,
            occupation: Mutex::default(),
        };
        place.occupation().seat = Some(self.seat(&place.cut));
        Presence(Arc::new(place))
    }

    fn seat(&self, cut: &CancellationToken) -> u64 {
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, cut.clone());
        number
    }

    /// Cuts the connection that has waited longest; `false` if none waits.
    pub(super) fn evict_longest_waiting(&self) -> bool {
        let longest = self.seats().taken.pop_first();
        longest.is_some_and(|(_, cut)| {
            cut.cancel();
            true
        })
    }

    pub(super) fn evict_all(&self) {
        while self.evict_longest_waiting() {}
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Presence {
    /// Cancelled when the connection is to end at once.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.0.cut
    }

    /// Stands up until the guard, and every other, is dropped; and is then the last to have sat down.
    pub(super) fn busy(&self) -> Busy {
        let mut occupation = self.0.occupation();
        occupation.busy += 1;
        self.0.stand_up(&mut occupation);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let place = &self.0.0;
        let mut occupation = place.occupation();
        occupation.busy -= 1;
        if occupation.busy == 0 {
            occupation.seat = Some(place.room.seat(&place.cut));
        }
    }
}

impl Place {
    fn stand_up(&self, occupation: &mut Occupation) {
        if let Some(number) = occupation.seat.take() {
            self.room.seats().taken.remove(&number);
        }
    }

    fn occupation(&self) -> MutexGuard<'_, Occupation> {
        self.occupation.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stand_up(&mut self.occupation());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiting_goes_first_and_one_with_a_request_stays() {
        let room = Arc::new(WaitingRoom::default());
        let tokens = [(); 3].map(|()| CancellationToken::new());
        let [first, second, third] = tokens.clone().map(|token| room.enter(token));
        let cut = || tokens.each_ref().map(CancellationToken::is_cancelled);

        let (request, answer) = (first.busy(), first.busy());
        assert!(room.evict_longest_waiting());
        assert_eq!(cut(), [false, true, false]);
        // It waits from now on, so the third has waited longer.
        drop(request);
        drop(answer);
        assert!(room.evict_longest_waiting());
        assert_eq!(cut(), [false, true, true]);
        let request = first.busy();
        drop((first, second, third));
        drop(request);
        assert!(!room.evict_longest_waiting(), "who has left is not there");
        assert_eq!(cut(), [false, true, true]);
    }
}
