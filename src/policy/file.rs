//! Policies as files: TOML, a key per rule, and `base`, whose rules hold where a file has none.

use std::{collections::BTreeMap, fmt::Write};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{built_in, entries};
use crate::model::{
    Error, Result,
    policy::{BuiltIn, Key, Policy, Rule},
};

/// The entry that stands for what the base allows.
const OF_BASE: &str = "...";

/// The text of a policy that is built in.
pub fn built_in_text(which: BuiltIn) -> &'static str {
    match which {
        BuiltIn::Trusted => include_str!("trusted.toml"),
        BuiltIn::Ci => include_str!("ci.toml"),
        BuiltIn::Strict => include_str!("strict.toml"),
    }
}

/// Reads a policy. 400 with the line if a key or an entry is none.
pub fn parse(name: &str, text: &str) -> Result<Policy> {
    let read = |text| {
        let mut table = DeTable::parse(text).map_err(|error| error.to_string())?.into_inner();
        let base = match table.remove("base") {
            None => BuiltIn::Ci,
            Some(base) => base_of(text, &base)?,
        };
        let mut rules = built_in(base).rules;
        for (key, rule) in own_rules(text, &table)? {
            let rule = extended(rule, rules.get(&key));
            rules.insert(key, rule);
        }
        Ok(Policy { name: name.to_owned(), base, rules })
    };
    read(text).map_err(|error: String| Error::invalid(format!("policy {name}: {}", error.trim_end())))
}

/// The rules of a built-in policy, which has all.
pub(super) fn parse_built_in(which: BuiltIn) -> BTreeMap<Key, Rule> {
    let text = built_in_text(which);
    let table = DeTable::parse(text).expect("the built-in policies are TOML");
    own_rules(text, table.get_ref()).expect("the built-in policies are right")
}

/// A policy as a file says it.
pub fn to_toml(policy: &Policy) -> String {
    let mut text = format!("base = \"{}\"\n", policy.base.as_str());
    for (key, rule) in &policy.rules {
        let value = match rule {
            Rule::All(all) => toml::Value::from(*all),
            Rule::Only(entries) => toml::Value::from(entries.clone()),
        };
        let _a_string_takes_all = writeln!(text, "{key} = {value}");
    }
    text
}

fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

fn base_of(text: &str, base: &Spanned<DeValue<'_>>) -> Result<BuiltIn, String> {
    let named = base.get_ref().as_str().and_then(BuiltIn::named);
    named.ok_or_else(|| format!("line {}: base is \"trusted\", \"ci\" or \"strict\"", line(text, base.span().start)))
}

fn own_rules(text: &str, table: &DeTable<'_>) -> Result<BTreeMap<Key, Rule>, String> {
    table.iter().map(|(key, value)| rule(text, key.get_ref(), key.span().start, value)).collect()
}

fn rule(text: &str, name: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Result<(Key, Rule), String> {
    let key = Key::ALL.iter().copied().find(|key| key.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = Key::ALL.iter().map(|key| key.as_str()).collect();
        format!("line {}: unknown key {name}: expected base or one of {}", line(text, at), known.join(", "))
    })?;
    match value.get_ref() {
        DeValue::Boolean(all) => Ok((key, Rule::All(*all))),
        DeValue::Array(list) => {
            let entry = |entry: &Spanned<DeValue<'_>>| checked_entry(text, key, entry);
            Ok((key, Rule::Only(list.iter().map(entry).collect::<Result<_, _>>()?)))
        }
        _ => Err(format!("line {}: {key}: expected true, false or a list", line(text, value.span().start))),
    }
}

fn checked_entry(text: &str, key: Key, entry: &Spanned<DeValue<'_>>) -> Result<String, String> {
    let wrong = |why: &str| format!("line {}: {key}: {why}", line(text, entry.span().start));
    let word = entry.get_ref().as_str().ok_or_else(|| wrong("entries are strings"))?;
    if word != OF_BASE || key == Key::Mirrors {
        entries::check(key, word).map_err(|why| wrong(&format!("{word:?}: {why}")))?;
    }
    Ok(word.to_owned())
}

/// A rule with the entries of the base where it asks for them.
fn extended(rule: Rule, base: Option<&Rule>) -> Rule {
    let Rule::Only(mut entries) = rule else { return rule };
    let Some(at) = entries.iter().position(|entry| entry == OF_BASE) else { return Rule::Only(entries) };
    entries.retain(|entry| entry != OF_BASE);
    match base {
        Some(Rule::All(true)) if entries.iter().any(|entry| entry.starts_with('!')) => {
            entries.insert(0, "*".to_owned());
            Rule::Only(entries)
        }
        Some(Rule::All(true)) => Rule::All(true),
        Some(Rule::Only(others)) => {
            entries.splice(at..at, others.iter().cloned());
            Rule::Only(entries)
        }
        Some(Rule::All(false)) | None => Rule::Only(entries),
    }
}
