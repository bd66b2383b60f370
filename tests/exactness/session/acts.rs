//! What a session does with one event at a time.

use super::{Open, Session, Stop};
use crate::exactness::event::{DAY, Event, SECOND};
use crate::exactness::finding::Kind;

impl Session<'_> {
    fn choose(&mut self) -> u32 {
        if self.dice.one_in(4) {
            self.stage.board.again(&mut self.dice)
        } else {
            self.stage.board.fresh()
        }
    }

    fn call_single(&mut self, event: &Event, value: &str) -> Result<bool, Stop> {
        let connection = self.connection()?;
        let row = connection.client.query_one(
            &connection.single,
            &[
                &event.event_name(),
                &event.customer,
                &value,
                &event.identifier,
                &event.timestamp(),
                &event.json(),
            ],
        )?;
        Ok(row.get(0))
    }

    pub(super) fn single(&mut self, open: &mut Open) -> Result<(), Stop> {
        let number = self.choose();
        self.record(open, number)
    }

    pub(super) fn record(&mut self, open: &mut Open, number: u32) -> Result<(), Stop> {
        let event = self.world().event(number);
        let acknowledged = self.board().is_recorded(number);
        self.board().attempt(number);
        match self.call_single(&event, &event.value()) {
            Ok(recorded) => {
                self.told_of(open, number, recorded, acknowledged);
                Ok(())
            }
            Err(Stop::Broken) => Err(Self::unanswered(open, vec![number], 0)),
            Err(stop) => Err(stop),
        }
    }

    pub(super) fn told_of(&mut self, open: &mut Open, number: u32, recorded: bool, acknowledged: bool) {
        let own = open.holds(number);
        if recorded && (own || acknowledged) {
            let event = self.world().event(number);
            self.board().report(Kind::Answer, format!("recorded again: {event:?}"));
        }
        if recorded {
            open.told().recorded.push(number);
            open.told().rows += 1;
        } else if !own {
            self.ledger.seen.push(number);
        }
    }

    /// The first try counts, whatever comes later under its name.
    pub(super) fn retry_with_another_value(&mut self) -> Result<(), Stop> {
        let number = self.board().again(&mut self.dice);
        if !self.board().is_recorded(number) {
            return Ok(());
        }
        let event = self.world().event(number);
        if self.call_single(&event, "424242")? {
            self.board()
                .report(Kind::Answer, format!("recorded again with another value: {event:?}"));
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, open: &mut Open) -> Result<(), Stop> {
        let number = self.stage.board.again(&mut self.dice);
        let event = self.world().event(number);
        let acknowledged = self.board().is_recorded(number);
        self.may_conflict = true;
        let cancelled_before = self.board().is_cancelled(number) || open.has_cancelled(number);
        let connection = self.connection()?;
        let answer = connection.client.query_one(
            &connection.cancel,
            &[&event.event_name(), &event.customer, &event.identifier],
        );
        match answer.map(|row| row.get(0)).map_err(Stop::from) {
            Ok(true) => {
                if cancelled_before {
                    self.board().report(Kind::Answer, format!("cancelled again: {event:?}"));
                }
                open.told().cancelled.push(number);
            }
            // A snapshot from before the event does not show it.
            Ok(false) if acknowledged && self.number.is_multiple_of(2) && !open.has_cancelled(number) => {
                self.ledger.cancelled_before.push(number);
            }
            Ok(false) => {}
            Err(Stop::Broken) => {
                open.told().cancelled.push(number);
                return Err(Stop::Broken);
            }
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    /// An event that must be refused, alone.
    pub(super) fn refused(&mut self) -> Result<(), Stop> {
        let (event, event_name) = self.unacceptable();
        let connection = self.connection()?;
        let answer = connection.client.query_one(
            &connection.single,
            &[
                &event_name,
                &event.customer,
                &event.value(),
                &event.identifier,
                &event.timestamp(),
                &event.json(),
            ],
        );
        let Err(error) = answer else {
            self.board().report(Kind::Answer, format!("not refused: {event:?}"));
            return Ok(());
        };
        match (Stop::from(error), event_name.as_str()) {
            (Stop::Fault(said), "no such meter") if said.contains("(no_meter)") => Ok(()),
            (Stop::Fault(said), _) if said.contains("(timestamp_") => Ok(()),
            (stop, _) => Err(stop),
        }
    }

    /// Too old, too early, or of no meter; with its event name.
    pub(super) fn unacceptable(&mut self) -> (Event, String) {
        let mut event = self.world().event(self.board().fresh());
        let name = event.event_name();
        event.at = Some(self.world().start + *self.dice.of(&[-36 * DAY, 2 * DAY, 3600 * SECOND]));
        match self.dice.below(3) {
            0 => (event, "no such meter".to_owned()),
            _ => (event, name),
        }
    }
}
