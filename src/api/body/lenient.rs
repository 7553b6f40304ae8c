//! A serde deserializer over a JSON value that behaves as Go's decoder: struct keys fit without regard to case,
//! `null` leaves a field at its default, and errors name the field's path and Go's type.

use std::{cell::RefCell, fmt};

use serde::{
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

/// Reads `T` and names the keys that no field took, each with its path.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<(T, Vec<String>), String> {
    let unknown = RefCell::new(Vec::new());
    let read = T::deserialize(Lenient { value, path: String::new(), unknown: &unknown }).map_err(|error| error.0)?;
    Ok((read, unknown.into_inner()))
}

/// A text in Go's words, complete.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Lenient<'a> {
    value: Value,
    path: String,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'a> Lenient<'a> {
    fn child(&self, key: &str, value: Value) -> Lenient<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Lenient { value, path, unknown: self.unknown }
    }

    fn refuse(&self, wanted: &str) -> Refused {
        let found = match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            // Go repeats a number that is of the right kind but does not fit.
            Value::Number(number) if wanted.contains("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let place = if self.path.is_empty() {
            format!("Go value of type {wanted}")
        } else {
            format!("Go struct field .{} of type {wanted}", self.path)
        };
        Refused(format!("json: cannot unmarshal {found} into {place}"))
    }

    /// Members of an object. With `fields` named, keys are folded to them as Go does it: the same, else the
    /// same but for case, and of two for one field the last wins. What fits nowhere is noted if it asks for something.
    fn members(self, fields: &'static [&'static str]) -> Result<Members<'a>, Refused> {
        let members = match self.value {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(self.refuse("object")),
        };
        let place = Lenient { value: Value::Null, path: self.path, unknown: self.unknown };
        if fields.is_empty() {
            return Ok(Members { place, rest: members.into_iter(), next: None });
        }
        let mut folded = Map::new();
        for (key, value) in members {
            match field_for(&key, fields) {
                Some(field) => drop(folded.insert(field.to_owned(), value)),
                None if asks_nothing(&value) => {}
                None => place.unknown.borrow_mut().push(place.child(&key, Value::Null).path),
            }
        }
        Ok(Members { place, rest: folded.into_iter(), next: None })
    }
}

/// Go clients send every field of a struct, also those that only answers use, with its zero value.
fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(asks_nothing),
        Value::Object(members) => members.values().all(asks_nothing),
    }
}

fn field_for(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key))).copied()
}

macro_rules! integers {
    ($($method:ident => $visit:ident, $as:ident, $go:literal);* $(;)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            match &self.value {
                Value::Null => visitor.$visit(0),
                value => match value.$as() {
                    Some(number) => visitor.$visit(number).map_err(|_: Refused| self.refuse($go)),
                    None => Err(self.refuse($go)),
                },
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Lenient<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            Value::Number(ref number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(self.refuse("int64")),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(flag) => visitor.visit_bool(flag),
            _ => Err(self.refuse("bool")),
        }
    }

    integers! {
        deserialize_i8 => visit_i64, as_i64, "int8";
        deserialize_i16 => visit_i64, as_i64, "int16";
        deserialize_i32 => visit_i64, as_i64, "int32";
        deserialize_i64 => visit_i64, as_i64, "int64";
        deserialize_u8 => visit_u64, as_u64, "uint8";
        deserialize_u16 => visit_u64, as_u64, "uint16";
        deserialize_u32 => visit_u64, as_u64, "uint32";
        deserialize_u64 => visit_u64, as_u64, "uint64";
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value.as_f64() {
            Some(number) => visitor.visit_f64(number),
            None if self.value.is_null() => visitor.visit_f64(0.0),
            None => Err(self.refuse("float64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::Null => visitor.visit_str(""),
            Value::String(text) => visitor.visit_string(text),
            _ => Err(self.refuse("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.value {
            Value::Null => {
                visitor.visit_seq(Elements { path: self.path, unknown: self.unknown, rest: vec![].into_iter() })
            }
            Value::Array(elements) => {
                visitor.visit_seq(Elements { path: self.path, unknown: self.unknown, rest: elements.into_iter() })
            }
            // Nearly all lists of the API are of strings; the element's type is not known here.
            _ => Err(self.refuse("[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_map(self.members(&[])?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_map(self.members(fields)?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.value {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(self.refuse("string")),
        }
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any }
}

struct Members<'a> {
    place: Lenient<'a>,
    rest: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.next = Some((key.clone(), value));
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let (key, value) = self.next.take().expect("serde asks for a value after its key");
        seed.deserialize(self.place.child(&key, value))
    }
}

struct Elements<'a> {
    path: String,
    unknown: &'a RefCell<Vec<String>>,
    rest: std::vec::IntoIter<Value>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        seed.deserialize(Lenient { value, path: self.path.clone(), unknown: self.unknown }).map(Some)
    }
}
