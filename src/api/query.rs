//! The query string by dockerd's rules: what counts as false, the first of repeated keys wins, lists repeat
//! their key, an empty number is no number.

use std::fmt;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{
    Deserialize,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use crate::model::{Error, filters::Filters};

/// The query as a struct of the handler's own: `#[serde(default)]`, fields as the keys are spelled. `bool`
/// fields follow dockerd's rule, `Vec` fields take every value of a repeated key.
#[derive(Clone, Debug, Default)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// The query of lists and prunes that take nothing but filters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FiltersQuery {
    /// Each list and prune says which it knows.
    pub filters: Filters,
}

/// Reads a query string.
pub fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Error> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| Error::invalid(format!("invalid query {query:?}")).with_source(error))?;
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in pairs {
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => keys.push((key, vec![value])),
        }
    }
    T::deserialize(Form(keys)).map_err(|Invalid(text)| Error::invalid(text))
}

/// What handlers' structs have room for, for the description of the API.
#[cfg(test)]
pub mod recorded {
    use std::cell::RefCell;

    thread_local! {
        static FIELDS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(fields: &[&'static str]) {
        FIELDS.with_borrow_mut(|all| all.extend(fields));
    }

    /// Those of the queries that this thread read since the last call.
    pub fn take() -> Vec<&'static str> {
        FIELDS.take()
    }
}

/// dockerd's rule: everything is true but nothing, `0`, `no`, `false` and `none`.
pub fn is_true(value: &str) -> bool {
    let value = value.trim();
    !["", "0", "no", "false", "none"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Why a value does not fit; becomes a 400.
#[derive(Debug)]
struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl de::Error for Invalid {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Form(Vec<(String, Vec<String>)>);

impl<'de> de::Deserializer<'de> for Form {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_map(Pairs { rest: self.0.into_iter(), values: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        #[cfg(test)]
        recorded::note(_fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Pairs {
    rest: std::vec::IntoIter<(String, Vec<String>)>,
    values: Option<Vec<String>>,
}

impl<'de> MapAccess<'de> for Pairs {
    type Error = Invalid;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Invalid> {
        let Some((key, values)) = self.rest.next() else { return Ok(None) };
        self.values = Some(values);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Invalid> {
        seed.deserialize(Values(self.values.take().unwrap_or_default()))
    }
}

/// All values of one key.
struct Values(Vec<String>);

impl Values {
    fn first(self) -> String {
        self.0.into_iter().next().unwrap_or_default()
    }

    fn number<N: std::str::FromStr>(self) -> Result<N, Invalid> {
        let text = self.first();
        text.parse().map_err(|_| Invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    }
}

macro_rules! numbers {
    ($($method:ident => $visit:ident: $number:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
            visitor.$visit(self.number::<$number>()?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Values {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_string(self.first())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_bool(is_true(&self.first()))
    }

    numbers! {
        deserialize_i8 => visit_i64: i64, deserialize_i16 => visit_i64: i64, deserialize_i32 => visit_i64: i64,
        deserialize_i64 => visit_i64: i64, deserialize_u8 => visit_u64: u64, deserialize_u16 => visit_u64: u64,
        deserialize_u32 => visit_u64: u64, deserialize_u64 => visit_u64: u64, deserialize_f32 => visit_f64: f64,
        deserialize_f64 => visit_f64: f64
    }

    /// `?t=` is as good as no `t`.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        if self.0.first().is_none_or(String::is_empty) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_seq(List(self.0.into_iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        visitor.visit_enum(self.first().into_deserializer())
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct List(std::vec::IntoIter<String>);

impl<'de> SeqAccess<'de> for List {
    type Error = Invalid;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Invalid> {
        self.0.next().map(|value| seed.deserialize(Values(vec![value]))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Example {
        all: bool,
        force: bool,
        limit: Option<i64>,
        t: Vec<String>,
        name: String,
        filters: Filters,
    }

    #[test]
    fn truth_is_as_in_dockerd() {
        for value in ["", "0", "no", "False", "NONE", "%20"] {
            assert!(!parse::<Example>(&format!("all={value}")).unwrap().all, "{value:?}");
        }
        for value in ["1", "true", "yes", "anything"] {
            assert!(parse::<Example>(&format!("all={value}")).unwrap().all, "{value:?}");
        }
    }

    #[test]
    fn first_of_repeated_keys_wins_and_lists_take_all() {
        let query: Example = parse("name=a&name=b&t=x&t=y&unknown=1&limit=").unwrap();
        assert_eq!((query.name.as_str(), query.limit), ("a", None));
        assert_eq!(query.t, ["x", "y"]);
    }

    #[test]
    fn bad_numbers_are_told_in_gos_words() {
        let error = parse::<Example>("limit=x").unwrap_err();
        assert_eq!(error.message(), "strconv.Atoi: parsing \"x\": invalid syntax");
    }

    #[test]
    fn filters_are_part_of_the_query() {
        let query: Example = parse("filters=%7B%22label%22%3A%5B%22a%22%5D%7D").unwrap();
        assert_eq!(query.filters.get("label"), ["a"]);
        assert_eq!(parse::<Example>("filters=x").unwrap_err().message(), "invalid filter");
    }
}
