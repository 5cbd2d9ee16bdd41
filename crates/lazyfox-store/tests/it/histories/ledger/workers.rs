//! What workers get, and what their losses may cost.

use lazyfox_core::id::{JobId, WorkerId};
use lazyfox_core::job::{Event, Status};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Ask, Change, Leased, Renewed};

use super::{Entry, Ledger};
use crate::world::input_of;

impl Entry {
    /// Whether a change is dear to the job: a retry, or its end.
    fn pays(&self, change: &Change) -> bool {
        change.job.retries > self.job.retries || change.job.status() == Status::Failed
    }

    /// A row of deaths grows by deaths only, and is never longer than was agreed.
    pub(super) fn check_losses(&self, change: &Change, event: &Event) {
        let (before, after) = (&self.job.deaths, &change.job.deaths);
        let most = self.job.terms.poison_after as usize;
        assert!(after.len() <= most);
        if most > 0 && after.len() == most {
            assert_eq!(change.job.status(), Status::Failed, "too many workers died");
        }
        if after.len() > before.len() {
            assert!(matches!(event, Event::Lost { died: true, .. }));
            assert_eq!(after[..before.len()], before[..]);
            assert_eq!(after.len(), before.len() + 1);
            assert_eq!(after.last().map(|it| &it.worker), self.holder());
        }
        if after.len() < before.len() {
            assert_eq!(after.len(), 0);
            let ends_a_row = match event {
                Event::Lost { died, .. } => !died && self.pays(change),
                Event::Clock => self.pays(change),
                event => *event == Event::Retry,
            };
            assert!(ends_a_row, "{event:?} is no end of a row of deaths");
        }
        let is_quiet = matches!(event, Event::Lost { died: false, .. } | Event::Clock);
        let retried = change.job.retries > self.job.retries;
        assert!(!is_quiet || !retried || after.is_empty(), "the row is over");
        if matches!(event, Event::Begin { .. }) {
            assert!(self.job.waits_in_worker() && !change.job.waits_in_worker());
        }
        if let Some((_, had_since)) = self.job.state.last_attempt()
            && let Some(end) = change.job.state.end()
        {
            let started_at = end.attempt.as_ref().map(|(_, at)| *at);
            assert!(started_at.is_some_and(|at| had_since <= at && at <= end.at));
        }
        if self.job.waits_in_worker() && *event == Event::Clock {
            assert!(!self.pays(change), "it had not begun");
        }
    }
}

impl Ledger {
    pub(crate) fn leased(&mut self, ask: &Ask, leased: &Leased, now: Timestamp) {
        let lost = Event::Lost {
            worker: ask.worker.clone(),
            how: String::new(),
            died: false,
        };
        self.lost(&leased.lost, &lost, &[]);
        let out = &leased.handouts;
        assert!(out.len() <= ask.count + ask.extra.count);
        assert!(ask.count > 0 || out.is_empty(), "somebody has to begin");
        let mut last = None;
        for (n, handout) in out.iter().enumerate() {
            let first = self.first_for(ask, now);
            assert_eq!(
                first,
                Some(handout.job.id),
                "the first of the normal lane, else of the low lane, goes out"
            );
            let waits = n >= ask.count;
            assert!(!waits || self.may_wait(ask, handout.job.id, last));
            assert_eq!(handout.job.waits_in_worker(), waits);
            last = Some(handout.job.terms.low_priority);
            let entry = self.entry(handout.job.id);
            assert_eq!(entry.job.endpoint, ask.endpoint);
            assert_eq!(handout.input, input_of(handout.job.id));
            assert_eq!(handout.secrets, entry.secrets);
            entry.attempts += 1;
            entry.job = handout.job.clone();
            assert_eq!(entry.holder(), Some(&ask.worker));
        }
        let most = match ask.count {
            0 => 0,
            count => count + ask.extra.count,
        };
        if out.len() < most
            && let Some(next) = self.first_for(ask, now)
        {
            let asked_for = out.len() < ask.count;
            assert!(!asked_for, "a poll came back too empty");
            assert!(!self.may_wait(ask, next, last), "more could go out");
        }
    }

    /// Whether a job may wait inside a worker, behind one of this lane.
    fn may_wait(&self, ask: &Ask, id: JobId, behind_low: Option<bool>) -> bool {
        let job = &self.kept(id).unwrap().job;
        let lasts = !job.expiry_is_hard || job.expires_at >= ask.extra.not_expiring_before;
        lasts && behind_low == Some(job.terms.low_priority)
    }

    /// Places never change, so that also jobs on their second attempt come in order of submission.
    fn first_for(&self, ask: &Ask, now: Timestamp) -> Option<JobId> {
        let lane = |low| {
            self.entries.iter().find(|entry| {
                entry.job.endpoint == ask.endpoint
                    && entry.job.terms.low_priority == low
                    && entry.waits_for(&ask.worker, now)
            })
        };
        lane(false).or_else(|| lane(true)).map(|entry| entry.job.id)
    }

    /// All that a worker held.
    pub(crate) fn let_go(&mut self, by: &WorkerId, event: &Event, begun: &[JobId], all: &[Change]) {
        match event {
            Event::Evict { .. } => {
                for change in all {
                    assert!(!self.entry(change.job.id).pays(change));
                    self.changed(change, event, None);
                }
            }
            event => self.lost(all, event, begun),
        }
        assert!(self.entries.iter().all(|entry| entry.holder() != Some(by)));
    }

    /// Jobs that were lost together: who had begun pays, and where nobody had, one does.
    fn lost(&mut self, changes: &[Change], event: &Event, known: &[JobId]) {
        let mut payers = 0;
        let mut innocent_payers = 0;
        for change in changes {
            let entry = self.entry(change.job.id);
            let begun = !entry.job.waits_in_worker() || known.contains(&change.job.id);
            let pays = entry.pays(change);
            assert!(pays || !begun, "it had begun");
            payers += usize::from(pays);
            innocent_payers += usize::from(pays && !begun);
            self.changed(change, event, None);
        }
        assert!(payers > 0 || changes.is_empty(), "nobody is to blame");
        assert!(innocent_payers == 0 || payers == 1, "one is enough");
    }

    /// A sign of life tells of every named job that waited, that it has begun.
    pub(crate) fn renewed(&self, by: &WorkerId, named: Option<&[JobId]>, renewed: &Renewed) {
        let held = self.entries.iter().filter(|it| it.holder() == Some(by));
        let held: Vec<&Entry> = held.filter(|it| !it.forgotten).collect();
        assert_eq!(renewed.holds, !held.is_empty());
        let named = named.unwrap_or_default();
        let begun = held
            .iter()
            .map(|it| &it.job)
            .filter(|job| job.waits_in_worker() && named.contains(&job.id))
            .map(|job| job.id);
        let mut begun: Vec<JobId> = begun.collect();
        let mut told = renewed.begun.clone();
        begun.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, begun);
        let mut not_held = named.to_vec();
        not_held.retain(|id| !held.iter().any(|it| it.job.id == *id));
        assert_eq!(renewed.not_held, not_held);
    }
}
