//! The budget and the lengths of time, and whether they fit together.

use std::num::NonZeroU32;

use super::super::raw::Written;
use super::super::value::{Value, written as text_of};
use super::told;
use crate::record::{Rules, Wanted};

/// The rules, and whether their lead is short.
pub(super) struct Limits {
    pub(super) rules: Rules,
    pub(super) short_lead: bool,
}

/// Truecaller's own limit.
const DOCUMENTED_LIMIT: u32 = 10;

pub(super) fn limits(written: &mut Written, warnings: &mut Vec<String>) -> Option<Limits> {
    let limit = NonZeroU32::new(written.count("budget.limit")?)?;
    let wanted = Wanted {
        lifetime: written.length("upstream.token_lifetime")?,
        window: written.length("budget.window")?,
        limit,
        reserve: written.count("budget.reserve"),
        in_flight: written.length("budget.in_flight"),
        spacing: written.length("budget.spacing"),
        lead: written.length("refresh.lead"),
        timeout: written.length("upstream.timeout"),
        skew: written.length("clock.skew"),
        revokes_previous: written.flag("upstream.revokes_previous"),
    };
    if limit.get() > DOCUMENTED_LIMIT {
        warnings.push(format!(
            "budget.limit: {limit} is more than the {DOCUMENTED_LIMIT} mints that Truecaller documents; is your account's budget really larger?"
        ));
    }
    check_reserve(written, &wanted);
    let rules = Rules::new(&wanted);
    check_timeout(written, &rules);
    check_spacing(written, &rules);
    let short_lead = check_lead(written, &rules, wanted.lead.is_some(), warnings);
    Some(Limits { rules, short_lead })
}

fn judged(written: &Written, paths: &[&str]) -> bool {
    paths.iter().all(|path| !written.has_failed(path))
}

fn check_reserve(written: &mut Written, wanted: &Wanted) {
    let most = wanted.limit.get() - 1;
    if let Some(reserve) = wanted.reserve.filter(|reserve| *reserve > most)
        && judged(written, &["budget.reserve", "budget.limit"])
    {
        let limit = told(written, "budget.limit", &Value::Count(wanted.limit.get()));
        let text = format!(
            "{reserve} leaves scheduled refreshes no slot of {limit}; expected at most {most}"
        );
        written.problem("budget.reserve", text);
    }
}

fn check_timeout(written: &mut Written, rules: &Rules) {
    let in_flight = rules.budget.in_flight;
    if in_flight < rules.timeout * 2
        && judged(
            written,
            &["upstream.timeout", "budget.in_flight", "budget.window"],
        )
    {
        // The one that was written is the one to be mended; of two, the time-out.
        let path = match written.is_written("upstream.timeout") {
            true => "upstream.timeout",
            false => "budget.in_flight",
        };
        let timeout = told(written, "upstream.timeout", &Value::Length(rules.timeout));
        let flight = told(written, "budget.in_flight", &Value::Length(in_flight));
        let text = format!(
            "{flight} is less than twice {timeout}: a call may begin one timeout after its slot was taken, and take another; \
             expected a timeout of at most {}, or an in_flight of at least {}",
            text_of(in_flight / 2),
            text_of(rules.timeout * 2)
        );
        written.problem(path, text);
    }
}

/// A longer distance would be a smaller budget by another name.
fn check_spacing(written: &mut Written, rules: &Rules) {
    let most = rules.budget.window / rules.budget.limit.get();
    if rules.spacing > most
        && judged(
            written,
            &["budget.spacing", "budget.window", "budget.limit"],
        )
    {
        let limit = told(
            written,
            "budget.limit",
            &Value::Count(rules.budget.limit.get()),
        );
        let text = format!(
            "{} leaves no time for {limit} mints in budget.window; expected at most {}, or a lower budget.limit",
            text_of(rules.spacing),
            text_of(most)
        );
        written.problem("budget.spacing", text);
    }
}

/// True if the lead is shorter than a slot's period and that was allowed.
fn check_lead(
    written: &mut Written,
    rules: &Rules,
    lead_is_written: bool,
    warnings: &mut Vec<String>,
) -> bool {
    let paths = [
        "upstream.token_lifetime",
        "budget.window",
        "budget.in_flight",
        "refresh.lead",
        "refresh.allow_short_lead",
    ];
    if !judged(written, &paths) {
        return false;
    }
    let [lead, period] = [rules.lead, rules.budget.period()].map(text_of);
    let sum = sum(rules);
    if rules.lifetime <= rules.lead {
        dead_on_arrival(written, rules, lead_is_written);
        return false;
    }
    let short = rules.lead < rules.budget.period();
    if short && !written.flag("refresh.allow_short_lead") {
        let text = format!(
            "{lead} is shorter than {period} ({sum}), so slots burnt before a refresh may not be free before expiry, and a spent \
             budget could outlast the token; expected at least {period}, or refresh.allow_short_lead = true to take that risk"
        );
        written.problem("refresh.lead", text);
    } else if short {
        warnings.push(format!(
            "refresh.lead: {lead} is shorter than {period} ({sum}): a spent budget can outlast the token"
        ));
    }
    short
}

/// A token would be due at its birth: told of the lead if that was written, and otherwise of the lifetime.
fn dead_on_arrival(written: &mut Written, rules: &Rules, lead_is_written: bool) {
    let [lead, lifetime, period] = [rules.lead, rules.lifetime, rules.budget.period()].map(text_of);
    let sum = sum(rules);
    if lead_is_written {
        let text = format!(
            "{lead} is not shorter than upstream.token_lifetime ({lifetime}), so a token would be due at its birth; expected less \
             than that, and at least {period} ({sum})"
        );
        return written.problem("refresh.lead", text);
    }
    let text = format!(
        "{lifetime} is not longer than the lead of {lead} ({sum}), so a token would be due at its birth; if it is right, set \
         refresh.lead below it and refresh.allow_short_lead = true"
    );
    written.problem("upstream.token_lifetime", text);
}

/// What a slot's period is made of.
fn sum(rules: &Rules) -> String {
    let budget = &rules.budget;
    let [window, in_flight, margin, period] = [
        budget.window,
        budget.in_flight,
        budget.margin,
        budget.period(),
    ]
    .map(text_of);
    format!("window {window} + in flight {in_flight} + margin {margin} = {period}")
}
