//! What a worker says, whatever carries it: frames are read and judged, and come to what the owner is told, what the
//! worker is answered, and how long it is not listened to. Carriers bring time and bytes, and decide nothing here.

mod pace;
mod voice;

use std::time::Instant;

use bytes::Bytes;
use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Close, Incoming, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::limits::Limits;
use helve_domain::ticket::Allowed;
use tracing::warn;

use crate::frames::{self, Decoded, Fault, Frame};
use pace::{Mistakes, Pace};
use voice::Voice;

/// Pings a second, of either kind, or changes of capacity or labels, past which a worker is heard more slowly. A change
/// is a statement of its own.
const PINGS: u32 = 10;
/// Attempts a second of which the engine knows nothing, and frames that are wrong or empty, past which a worker is heard
/// more slowly.
const STRANGERS: u32 = 100;
/// Unknown fields that a worker is told of.
const UNKNOWN: usize = 16;

/// One worker's side of a conversation, after its `hello`.
pub(crate) struct Conversation {
    /// What its ticket allows.
    allowed: Option<Allowed>,
    pings: Pace,
    strangers: Pace,
    mistakes: Mistakes,
    voice: Voice,
    /// What it was told of fields that nobody knows.
    unknown: Vec<String>,
}

/// When something was said: for rates, and as the time of what is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub at: Instant,
    pub time: Timestamp,
}

/// What a message comes to.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Frames that answer it.
    pub answers: Vec<String>,
    /// What the owner is told.
    pub tell: Option<Incoming>,
    /// Until when the worker is not heard.
    pub pause: Option<Instant>,
    /// How the conversation ends, after all of the above.
    pub end: Option<Close>,
}

impl Heard {
    fn answer(&mut self, fault: &Fault) {
        self.answers.push(frames::fault(fault));
    }

    fn wait(&mut self, until: Option<Instant>) {
        self.pause = self.pause.max(until);
    }
}

impl Conversation {
    pub(crate) fn new(limits: &Limits, allowed: Option<Allowed>, now: Instant) -> Self {
        Self {
            allowed,
            pings: Pace::new(PINGS, now),
            strangers: Pace::new(STRANGERS, now),
            mistakes: Mistakes::none(),
            voice: Voice::new(limits, now),
            unknown: Vec::new(),
        }
    }

    /// A text from the worker. `keep` counts what of it had to be written anew.
    pub(crate) fn hear(
        &mut self,
        text: &Bytes,
        said: Said,
        limits: &Limits,
        keep: impl FnOnce(Bytes) -> Bytes,
    ) -> Heard {
        let mut heard = Heard::default();
        let decoded = frames::decode_kept(text, limits, keep);
        for fault in &decoded.faults {
            heard.answer(fault);
        }
        for told in &decoded.unknown {
            self.name_unknown(told, &mut heard);
        }
        heard.wait(self.idle_words(&decoded, said.at));
        if let (false, Some(fault)) = (decoded.is_frame, decoded.faults.first()) {
            heard.end = self.no_frame(fault, said.at);
        } else if let Some(frame) = decoded.frame {
            self.hear_frame(frame, said, &mut heard);
        }
        heard
    }

    /// A message that is not even a text.
    pub(crate) fn hear_binary(&mut self, now: Instant) -> Heard {
        let (mut heard, fault) = (Heard::default(), Fault::binary());
        heard.answer(&fault);
        heard.end = self.no_frame(&fault, now);
        heard
    }

    /// The carrier's own ping: how long the worker is not heard if there are too many.
    pub(crate) fn pinged(&mut self, now: Instant) -> Option<Instant> {
        self.pings.take(1, now)
    }

    /// What the worker is about to be told: one that keeps speaking of attempts that the engine does not know is heard
    /// more slowly.
    pub(crate) fn answered(&mut self, message: &Outgoing, now: Instant) -> Option<Instant> {
        let strangers = match message {
            Outgoing::Superseded(tasks) => tasks.iter().filter(|(_, reason)| *reason == Reason::Unknown).count(),
            Outgoing::Error(Code::TooManyRequests | Code::NotHeld, _) => 1,
            _ => 0,
        };
        if strangers > 0 { self.strangers.take(strangers, now) } else { None }
    }

    fn hear_frame(&mut self, frame: Frame, said: Said, heard: &mut Heard) {
        if let Some(fault) = self.beyond_ticket(&frame) {
            heard.answer(&fault);
            heard.end = Some(Close::NotAllowed);
            return;
        }
        heard.tell = match frame {
            Frame::Hello(_) => {
                let message = "this socket has had its hello; this one was ignored";
                heard.answer(&Fault::whole(Code::HelloTwice, message));
                None
            }
            Frame::Log(lines) => Some(Incoming::Log(self.voice.log(lines, said.at, said.time))),
            Frame::Progress(items) => {
                let (items, pause) = self.voice.progress(items, said.at, said.time);
                heard.wait(pause);
                Some(Incoming::Progress(items))
            }
            Frame::Ping => {
                heard.wait(self.pinged(said.at));
                heard.answers.push(frames::pong().to_owned());
                None
            }
            Frame::Said(nothing) if says_nothing(&nothing) => None,
            Frame::Said(Incoming::Goodbye) => {
                heard.end = Some(Close::Normal);
                Some(Incoming::Goodbye)
            }
            Frame::Said(incoming) => {
                if matches!(incoming, Incoming::Labels(_) | Incoming::Capacity(_)) {
                    heard.wait(self.pinged(said.at));
                }
                Some(incoming)
            }
        };
    }

    /// Names a field that nobody knows, once: it harms nobody, and its worker may be newer than this engine.
    fn name_unknown(&mut self, fault: &Fault, heard: &mut Heard) {
        if self.unknown.len() < UNKNOWN && !self.unknown.contains(&fault.message) {
            self.unknown.push(fault.message.clone());
            heard.answer(fault);
        }
    }

    /// A message that is no frame ends the conversation only when such messages repeat: the worker may hold other work.
    fn no_frame(&mut self, fault: &Fault, now: Instant) -> Option<Close> {
        let count = self.mistakes.one_more(now);
        if matches!(count, Some(1) | None) {
            let ((at, reason), closed) = (frames::logged(fault), count.is_none());
            warn!(at, reason, closed, "a worker sent what is no frame");
        }
        count.is_none().then_some(Close::BadFrame)
    }

    /// Frames that are wrong or say nothing cost the worker its own time, as those about attempts that are not known.
    fn idle_words(&mut self, decoded: &Decoded, now: Instant) -> Option<Instant> {
        let empty = match &decoded.frame {
            None | Some(Frame::Hello(_) | Frame::Said(Incoming::Drain)) => true,
            Some(Frame::Said(said)) => says_nothing(said),
            Some(Frame::Log(_) | Frame::Progress(_) | Frame::Ping) => false,
        };
        let idle = decoded.faults.len() + usize::from(empty && decoded.faults.is_empty());
        if idle > 0 { self.strangers.take(idle, now) } else { None }
    }

    /// What a frame asks for beyond what the worker's ticket allows.
    fn beyond_ticket(&self, frame: &Frame) -> Option<Fault> {
        let allowed = self.allowed.as_ref()?;
        let checked = match frame {
            Frame::Said(Incoming::Labels(labels)) => allowed.check_labels(labels),
            Frame::Said(Incoming::Capacity(slots)) => allowed.check_slots(slots),
            _ => return None,
        };
        checked.err().map(|err| Fault::from(&err))
    }
}

/// Whether a list of attempts is empty: nobody need hear of it.
const fn says_nothing(said: &Incoming) -> bool {
    match said {
        Incoming::Received(attempts) | Incoming::FreeSlot(attempts) => attempts.is_empty(),
        Incoming::Results(results) => results.is_empty(),
        Incoming::Extend(extensions) => extensions.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use helve_domain::clock::Clock;
    use serde_json::{Value, json};

    use super::*;

    struct Talk {
        side: Conversation,
        now: Instant,
    }

    impl Talk {
        fn new(allowed: Option<Allowed>) -> Self {
            let now = Clock::system().instant();
            Self { side: Conversation::new(&Limits::default(), allowed, now), now }
        }

        fn says(&mut self, text: &str) -> Heard {
            let said = Said { at: self.now, time: Timestamp::from_micros(1_800_000_000_000_000) };
            self.side.hear(&Bytes::copy_from_slice(text.as_bytes()), said, &Limits::default(), |bytes| bytes)
        }

        fn sends(&mut self, frame: &Value) -> Heard {
            self.says(&frame.to_string())
        }
    }

    fn codes(heard: &Heard) -> Vec<String> {
        let code = |frame: &String| serde_json::from_str::<Value>(frame).unwrap()["code"].as_str().unwrap().to_owned();
        heard.answers.iter().map(code).collect()
    }

    const RECEIVED: &str =
        r#"{"type":"received","tasks":[{"task_run":"run_01932c4f8a2b7c3d9e4f506172839401","attempt":1}]}"#;

    #[test]
    fn what_is_right_is_told_and_costs_nothing() {
        let mut talk = Talk::new(None);
        for _ in 0..1_000 {
            let heard = talk.says(RECEIVED);
            assert!(matches!(&heard.tell, Some(Incoming::Received(attempts)) if attempts.len() == 1), "{heard:?}");
            assert!(heard.answers.is_empty() && heard.pause.is_none() && heard.end.is_none(), "{heard:?}");
        }
    }

    #[test]
    fn a_goodbye_is_told_and_is_the_end() {
        let heard = Talk::new(None).sends(&json!({"type": "goodbye"}));
        assert!(matches!((heard.tell, heard.end), (Some(Incoming::Goodbye), Some(Close::Normal))));
    }

    #[test]
    fn a_field_that_nobody_knows_is_named_once_and_the_frame_counts() {
        let mut talk = Talk::new(None);
        let frame = json!({"type": "drain", "drian": true});
        let heard = talk.sends(&frame);
        assert_eq!((codes(&heard), heard.tell.is_some()), (vec!["unknown_field".to_owned()], true));
        assert!(codes(&talk.sends(&frame)).is_empty());
        let many = (0..100).filter(|n| !codes(&talk.sends(&json!({"type": "drain", format!("x{n}"): 1}))).is_empty());
        assert_eq!(many.count(), UNKNOWN - 1);
    }

    #[test]
    fn ten_messages_that_are_no_frames_are_answered_and_the_next_one_is_the_last() {
        let mut talk = Talk::new(None);
        for _ in 0..5 {
            assert!(talk.says("hello?").end.is_none() && talk.side.hear_binary(talk.now).end.is_none());
        }
        let last = talk.says("hello?");
        assert_eq!((codes(&last), last.end), (vec!["bad_frame".to_owned()], Some(Close::BadFrame)), "{last:?}");
        talk.now += Duration::from_secs(60);
        assert!(talk.says("hello?").end.is_none(), "a minute later they are forgotten");
    }

    #[test]
    fn a_worker_that_says_nothing_much_and_often_is_heard_more_slowly() {
        let empty = json!({"type": "received", "tasks": []});
        let mut talk = Talk::new(None);
        let heard: Vec<Heard> = (0..150).map(|_| talk.sends(&empty)).collect();
        assert!(heard.iter().all(|h| h.tell.is_none() && h.end.is_none()));
        assert!(heard[99].pause.is_none() && heard[149].pause.is_some_and(|until| until > talk.now));
        let mut talk = Talk::new(None);
        let pings: Vec<Heard> = (0..12).map(|_| talk.sends(&json!({"type": "ping"}))).collect();
        assert!(pings[9].pause.is_none() && pings[11].pause.is_some() && pings.iter().all(|p| p.answers.len() == 1));
    }

    #[test]
    fn what_a_ticket_does_not_allow_is_the_end() {
        let allowed: Allowed = serde_json::from_value(json!({
            "actions": ["a"], "slots": {"default": 2}, "labels": {}
        }))
        .unwrap();
        let mut talk = Talk::new(Some(allowed));
        let within = talk.sends(&json!({"type": "capacity", "slots": {"default": 2}}));
        assert!(matches!((within.tell, within.end), (Some(Incoming::Capacity(_)), None)));
        let beyond = talk.sends(&json!({"type": "capacity", "slots": {"default": 3}}));
        assert!(beyond.tell.is_none() && beyond.answers.len() == 1);
        assert_eq!(beyond.end, Some(Close::NotAllowed));
    }
}
