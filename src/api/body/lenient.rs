//! A serde deserializer over JSON text that behaves as Go's decoder: struct keys fit without regard to case,
//! `null` leaves a field at its default, and errors name the field's path and Go's type. It reads the text in place: what
//! no field takes costs no memory.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
};

use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Number, value::RawValue};

use crate::model::limits;

/// Reads `T` and names the keys that no field took, each with its path.
pub fn from_raw<T: DeserializeOwned>(value: &RawValue) -> Result<(T, Vec<String>), String> {
    let told = Told {
        unknown: RefCell::new(Vec::new()),
        left: Cell::new((limits::MADE_OF_A_BYTE * value.get().len()).clamp(limits::MADE_OF_LITTLE, limits::MADE)),
    };
    // `null` leaves every field as it is.
    let empty: &RawValue = serde_json::from_str("{}").expect("an object");
    let value = if value.get() == "null" { empty } else { value };
    let read = T::deserialize(Lenient { value, path: String::new(), told: &told }).map_err(|error| error.0)?;
    Ok((read, told.unknown.into_inner()))
}

/// What is told of the whole text.
struct Told {
    unknown: RefCell<Vec<String>>,
    /// Bytes of memory that may still be made of it.
    left: Cell<usize>,
}

impl Told {
    /// Before a value is made that a list or an object holds: `[{},{},…]` may become a hundred times its length.
    fn make_room<T>(&self) -> Result<(), Refused> {
        let left = self.left.get().checked_sub(size_of::<T>());
        self.left.set(left.ok_or_else(|| Refused("there is too much in too few bytes".to_owned()))?);
        Ok(())
    }
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
    value: &'a RawValue,
    path: String,
    told: &'a Told,
}

/// What a value is, told by its first letter: that it is JSON is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Lenient<'a> {
    fn child(&self, key: &str, value: &'a RawValue) -> Lenient<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Lenient { value, path, told: self.told }
    }

    fn kind(&self) -> Kind {
        match self.value.get().as_bytes().first() {
            Some(b'n') | None => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            Some(_) => Kind::Number,
        }
    }

    fn read<T: Deserialize<'a>>(&self) -> Result<T, Refused> {
        serde_json::from_str(self.value.get()).map_err(de::Error::custom)
    }

    fn refuse(&self, wanted: &str) -> Refused {
        let found = match self.kind() {
            Kind::Null => "null".to_owned(),
            Kind::Bool => "bool".to_owned(),
            // Go repeats a number that is of the right kind but does not fit.
            Kind::Number if wanted.contains("int") => {
                format!("number {}", limits::shown(self.value.get(), limits::SHOWN))
            }
            Kind::Number => "number".to_owned(),
            Kind::String => "string".to_owned(),
            Kind::Array => "array".to_owned(),
            Kind::Object => "object".to_owned(),
        };
        let place = if self.path.is_empty() {
            format!("Go value of type {wanted}")
        } else {
            format!("Go struct field .{} of type {wanted}", limits::shown(&self.path, limits::SHOWN))
        };
        Refused(format!("json: cannot unmarshal {found} into {place}"))
    }

    /// Members of an object. With `fields` named, keys are folded to them as Go does it: the same, else the
    /// same but for case, and of two for one field the last wins. What fits nowhere is noted if it asks for something.
    fn members(self, fields: &'static [&'static str]) -> Result<Members<'a>, Refused> {
        let members = match self.kind() {
            Kind::Object => self.read::<Pairs<'a>>()?.0,
            Kind::Null => Vec::new(),
            _ => return Err(self.refuse("object")),
        };
        if fields.is_empty() {
            return Ok(Members { place: self, rest: members.into_iter(), next: None });
        }
        let mut folded = IndexMap::new();
        for (key, value) in members {
            match field_for(&key, fields) {
                Some(field) => drop(folded.insert(field, value)),
                None if asks_nothing(value) => {}
                None => self.note(&key),
            }
        }
        let folded: Vec<_> = folded.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect();
        Ok(Members { place: self, rest: folded.into_iter(), next: None })
    }

    fn note(&self, key: &str) {
        let mut unknown = self.told.unknown.borrow_mut();
        if unknown.len() < limits::UNKNOWN_FIELDS {
            unknown.push(limits::shown(&self.child(key, self.value).path, limits::SHOWN).into_owned());
        }
    }
}

/// An object's members as they come, their values still text.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Go clients send every field of a struct, also those that only answers use, with its zero value.
fn asks_nothing(value: &RawValue) -> bool {
    serde_json::from_str(value.get()).is_ok_and(|Zero(zero)| zero)
}

/// Whether a value is zero, and all that is in it.
struct Zero(bool);

impl<'de> Deserialize<'de> for Zero {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Zero;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_unit<E>(self) -> Result<Zero, E> {
                Ok(Zero(true))
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Zero, E> {
                Ok(Zero(!flag))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Zero, E> {
                Ok(Zero(number == 0))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Zero, E> {
                Ok(Zero(number == 0))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Zero, E> {
                Ok(Zero(number == 0.0))
            }

            fn visit_str<E>(self, text: &str) -> Result<Zero, E> {
                Ok(Zero(text.is_empty()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Zero, A::Error> {
                let mut all = true;
                while let Some(Zero(zero)) = list.next_element()? {
                    all &= zero;
                }
                Ok(Zero(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Zero, A::Error> {
                let mut all = true;
                while let Some((IgnoredAny, Zero(zero))) = map.next_entry()? {
                    all &= zero;
                }
                Ok(Zero(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn field_for(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key))).copied()
}

macro_rules! integers {
    ($($method:ident => $visit:ident, $as:ident, $go:literal);* $(;)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            match self.kind() {
                Kind::Null => visitor.$visit(0),
                Kind::Number => match self.read::<Number>().ok().and_then(|number| number.$as()) {
                    Some(number) => visitor.$visit(number).map_err(|_: Refused| self.refuse($go)),
                    None => Err(self.refuse($go)),
                },
                _ => Err(self.refuse($go)),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Lenient<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.kind() {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool => visitor.visit_bool(self.read()?),
            Kind::String => visitor.visit_string(self.read()?),
            Kind::Array => self.deserialize_seq(visitor),
            Kind::Object => self.deserialize_map(visitor),
            Kind::Number => {
                let number: Number = self.read()?;
                match (number.as_u64(), number.as_i64(), number.as_f64()) {
                    (Some(number), ..) => visitor.visit_u64(number),
                    (_, Some(number), _) => visitor.visit_i64(number),
                    (.., Some(number)) => visitor.visit_f64(number),
                    _ => Err(self.refuse("int64")),
                }
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.kind() {
            Kind::Null => visitor.visit_bool(false),
            Kind::Bool => visitor.visit_bool(self.read()?),
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
        match self.kind() {
            Kind::Null => visitor.visit_f64(0.0),
            Kind::Number => visitor.visit_f64(self.read()?),
            _ => Err(self.refuse("float64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.kind() {
            Kind::Null => visitor.visit_str(""),
            Kind::String => visitor.visit_string(self.read()?),
            _ => Err(self.refuse("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.kind() == Kind::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let elements: Vec<&RawValue> = match self.kind() {
            Kind::Null => Vec::new(),
            Kind::Array => self.read()?,
            // Nearly all lists of the API are of strings; the element's type is not known here.
            _ => return Err(self.refuse("[]string")),
        };
        visitor.visit_seq(Elements { path: self.path, told: self.told, rest: elements.into_iter() })
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
        match self.kind() {
            Kind::String => visitor.visit_enum(self.read::<String>()?.into_deserializer()),
            _ => Err(self.refuse("string")),
        }
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any }
}

struct Members<'a> {
    place: Lenient<'a>,
    rest: std::vec::IntoIter<(Cow<'a, str>, &'a RawValue)>,
    next: Option<(Cow<'a, str>, &'a RawValue)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.next = Some((key.clone(), value));
        seed.deserialize(key.into_owned().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let (key, value) = self.next.take().expect("serde asks for a value after its key");
        self.place.told.make_room::<V::Value>()?;
        seed.deserialize(self.place.child(&key, value))
    }
}

struct Elements<'a> {
    path: String,
    told: &'a Told,
    rest: std::vec::IntoIter<&'a RawValue>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        self.told.make_room::<T::Value>()?;
        seed.deserialize(Lenient { value, path: self.path.clone(), told: self.told }).map(Some)
    }
}
