//! Which mint meets which fault: a script is queued, and each arriving mint takes the next step.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::Fault;

/// Faults in the order in which arriving mints meet them.
///
/// ```
/// use bearerd::sandbox::{Fault, Script};
///
/// // The first mint goes well, the second and third answers are lost, and every later mint gets a 503.
/// let script = Script::new().then(Fault::LostAnswer).times(2).from_nth(2).always(Fault::status(503));
/// # let _ = script;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<Step>,
    always: Option<Fault>,
}

/// `times` mints that meet `fault`, or none.
#[derive(Clone, Debug)]
struct Step {
    fault: Option<Fault>,
    times: u64,
}

impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next mint meets `fault`.
    #[must_use]
    pub fn then(mut self, fault: Fault) -> Self {
        self.steps.push(Step {
            fault: Some(fault),
            times: 1,
        });
        self
    }

    /// The last fault is met by `times` mints in a row; zero means by none.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        if let Some(last) = self.steps.last_mut() {
            last.times = times;
        }
        self
    }

    /// `count` mints go well before the last fault is met.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        let last = self.steps.len().saturating_sub(1);
        let clean = Step {
            fault: None,
            times: count,
        };
        self.steps.insert(last, clean);
        self
    }

    /// The last fault is met from the `nth` mint on, counted from one behind the steps before it.
    #[must_use]
    pub fn from_nth(self, nth: u64) -> Self {
        self.after(nth.saturating_sub(1))
    }

    /// Every mint that finds the queue empty meets `fault`, until the faults are cleared.
    #[must_use]
    pub fn always(mut self, fault: Fault) -> Self {
        self.always = Some(fault);
        self
    }

    /// Reads a script from a JSON object or an array of them: a fault each, with `times` and `after` or with `always`.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, String> {
        let items = match serde_json::from_slice(body) {
            Ok(Value::Array(items)) => items,
            Ok(item) => vec![item],
            Err(e) => return Err(format!("the body is not JSON: {e}")),
        };
        let mut script = Self::new();
        for item in items {
            script = script.read_item(item)?;
        }
        Ok(script)
    }

    fn read_item(self, item: Value) -> Result<Self, String> {
        let Value::Object(mut item) = item else {
            return Err("a fault is a JSON object".into());
        };
        let mut plan = serde_json::Map::new();
        for field in ["times", "after", "always"] {
            plan.extend(item.remove_entry(field));
        }
        let plan: Plan = serde_json::from_value(plan.into())
            .map_err(|e| format!("`times` and `after` are counts, `always` is a boolean: {e}"))?;
        let fault = Fault::from_json(item.into())?;
        match (plan.always, plan.times, plan.after) {
            (false, times, after) => Ok(self
                .then(fault)
                .times(times.unwrap_or(1))
                .after(after.unwrap_or(0))),
            (true, None, None) => Ok(self.always(fault)),
            (true, ..) => Err("`always` goes with neither `times` nor `after`".into()),
        }
    }
}

impl From<Fault> for Script {
    fn from(fault: Fault) -> Self {
        Self::new().then(fault)
    }
}

#[derive(Deserialize)]
struct Plan {
    times: Option<u64>,
    after: Option<u64>,
    #[serde(default)]
    always: bool,
}

/// The steps that are still to come.
#[derive(Default)]
pub(super) struct Queue {
    steps: VecDeque<Step>,
    always: Option<Fault>,
}

impl Queue {
    /// Appends a script; its `always` replaces the one before it.
    pub(super) fn append(&mut self, script: Script) {
        self.steps
            .extend(script.steps.into_iter().filter(|step| step.times > 0));
        self.always = script.always.or(self.always.take());
    }

    /// What the arriving mint meets.
    pub(super) fn next(&mut self) -> Option<Fault> {
        let Some(step) = self.steps.front_mut() else {
            return self.always.clone();
        };
        step.times -= 1;
        if step.times == 0 {
            self.steps.pop_front().and_then(|step| step.fault)
        } else {
            step.fault.clone()
        }
    }

    /// Forgets everything, `always` included.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many queued mints are still to meet a fault.
    pub(super) fn faults_left(&self) -> u64 {
        let faulty = self.steps.iter().filter(|step| step.fault.is_some());
        faulty.fold(0, |sum, step| sum.saturating_add(step.times))
    }

    /// The queue as JSON; a step that goes well has the fault null.
    pub(super) fn to_json(&self) -> Value {
        let name = |fault: &Option<Fault>| fault.as_ref().map(Fault::name);
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| json!({"fault": name(&step.fault), "times": step.times}))
            .collect();
        json!({"queue": steps, "always": name(&self.always)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(script: Script, count: usize) -> Vec<&'static str> {
        let mut queue = Queue::default();
        queue.append(script);
        (0..count)
            .map(|_| queue.next().map_or("-", |fault| fault.name()))
            .collect()
    }

    #[test]
    fn each_mint_takes_the_next_step() {
        let script = Script::new()
            .then(Fault::EmptyToken)
            .then(Fault::LostAnswer)
            .times(2)
            .from_nth(2)
            .then(Fault::BadToken)
            .times(0);
        assert_eq!(
            met(script, 5),
            ["empty_token", "-", "lost_answer", "lost_answer", "-"]
        );
    }

    #[test]
    fn always_begins_where_the_queue_ends() {
        let script = Script::new()
            .then(Fault::EmptyToken)
            .always(Fault::DropAfterMint);
        assert_eq!(
            met(script, 3),
            ["empty_token", "drop_after_mint", "drop_after_mint"]
        );
    }

    #[test]
    fn a_script_reads_from_json() {
        let script = Script::from_json(
            br#"[{"fault":"lost_answer","times":2,"after":1},{"fault":"status","code":500,"always":true}]"#,
        );
        assert_eq!(
            met(script.unwrap(), 4),
            ["-", "lost_answer", "lost_answer", "status"]
        );
        for wrong in ["", "7", r#"{"fault":"lost_answer","times":-1}"#] {
            Script::from_json(wrong.as_bytes()).unwrap_err();
        }
        Script::from_json(br#"{"fault":"lost_answer","times":1,"always":true}"#).unwrap_err();
    }

    #[test]
    fn clearing_forgets_always_too() {
        let mut queue = Queue::default();
        queue.append(Script::from(Fault::EmptyToken).always(Fault::LostAnswer));
        assert_eq!(queue.faults_left(), 1);
        queue.clear();
        assert_eq!(queue.next(), None);
    }
}
